"""A generator without errors: the miniature's own renderer."""
