"""Writers of data sets for use elsewhere: one module for each layout."""
