"""Gen2Det (arXiv 2312.04566): the objects of real images painted anew, in their boxes."""
