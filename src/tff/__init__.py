"""Discover the transferable forensic features of detectors of generated images."""
