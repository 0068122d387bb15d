"""What the Snakefile asks: the checked configuration, jobs, what they need, what they cost."""
