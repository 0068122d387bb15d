"""Filters that keep or reject generated annotations, shared by the engines."""
