"""Packed rows to checkpoints: continued pre-training of causal models of Hugging Face on one process or many."""
