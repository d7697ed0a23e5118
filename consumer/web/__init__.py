"""The operators' pages, for a browser: a view of what `operations/` does, and no second truth."""
