"""The whole way on one small machine: histories to samples, a model, its training, its attempts at tasks."""
