"""Readers of a user's own annotations: a folder in one of several layouts becomes dictionaries of COCO."""
