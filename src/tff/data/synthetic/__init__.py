"""Sets of images that are made from photographs."""
