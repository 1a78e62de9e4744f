"""Training: the module, the schedule, and the analysis of each checkpoint."""
