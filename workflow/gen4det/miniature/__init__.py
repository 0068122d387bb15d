"""The procedural world and the foundation models trained on it."""
