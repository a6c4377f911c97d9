"""What a dataset or a run holds, row by row, as pages of a local server."""
