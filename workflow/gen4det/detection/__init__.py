"""Detectors: data loading, training, inference on mmdet and mmengine."""
