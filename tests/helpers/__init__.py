"""What several tests share: tiny data and detectors, replicas, fakes."""
