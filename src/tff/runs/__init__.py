"""A run of train.py or of analyze.py: its processes, and what it does when something fails."""
