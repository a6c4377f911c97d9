"""Turn repository histories and real tool runs into mid-training data for software-engineering agents."""

__version__ = "0.1.0"
