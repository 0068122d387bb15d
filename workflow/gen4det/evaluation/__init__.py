"""Average precision, tables and figures."""
