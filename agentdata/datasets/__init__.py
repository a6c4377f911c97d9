"""Runs to a dataset: assembled, described by its own rows, published, compared, looked at."""
