"""Changes or mutated code to environments and tasks, proved by runs."""
