"""Samples to tokens, tokens to packed rows, packed rows to a checkpoint."""
