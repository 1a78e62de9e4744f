"""Data sets: what they are made of, how rows are read and given to processes."""
