"""InstaGen (arXiv 2402.05937)."""
