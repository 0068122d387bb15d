"""Measures: of a detector on a data set, of a synthetic set, of a generator. See `registry`."""
