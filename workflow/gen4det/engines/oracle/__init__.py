"""A generator without a fault: the miniature's own renderer."""
