"""DetDiffusion (arXiv 2403.13304) and GeoDiffusion: boxes, and their difficulty, as words of the prompt."""
