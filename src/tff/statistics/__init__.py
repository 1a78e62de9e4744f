"""Statistics: pure functions, and thin metrics that stream them over batches and processes."""
