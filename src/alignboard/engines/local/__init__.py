"""The engine of a model in memory."""
