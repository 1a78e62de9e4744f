"""Shared by several tests: tiny data and detectors, reference implementations, fakes."""
