"""COCO and LVIS files, image stores, dataset descriptors, downloads."""
