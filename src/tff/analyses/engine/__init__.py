"""What all analyses share: the subject, passes over images, protocols, measures."""
