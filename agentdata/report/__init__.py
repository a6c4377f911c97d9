"""What a person wants to know of a dataset, a run or a training, as one page."""
