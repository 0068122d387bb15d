"""One small command-line program per workflow stage."""
