"""Pipelines, schedulers and attention capture shared by the engines."""
