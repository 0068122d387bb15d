"""MosaicFusion (arXiv 2309.13042): several objects on one canvas, masks from cross-attention."""
