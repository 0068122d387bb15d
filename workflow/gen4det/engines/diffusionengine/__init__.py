"""DiffusionEngine (arXiv 2309.03893): real images drawn anew, labelled from the features of the last step."""
