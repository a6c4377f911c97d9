"""SWE-bench rows to tasks, attempts to predictions, the official grading, and what the figures say."""
