"""The audit of results folders and of published boards."""
