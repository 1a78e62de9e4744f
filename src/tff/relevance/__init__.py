"""Layer-wise relevance propagation: which channels speak for a decision."""
