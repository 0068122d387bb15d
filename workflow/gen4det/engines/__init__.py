"""The data engines; each knows its own method and no other engine."""
