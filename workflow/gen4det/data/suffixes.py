"""Endings of files, where even a small import would be too much."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
ANNOTATION_SUFFIXES = frozenset({".json", ".xml", ".txt", ".yaml", ".yml", ".names"})
