"""Run untrusted commands in sandboxes: Docker containers, or local processes for what is trusted.

Knows nothing of git, tasks or models.
"""
