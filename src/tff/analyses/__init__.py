"""Analyses: each answers one question about a `Subject` and returns a `Result`."""
