"""Boards: rows of models by declared columns, their builders, files, pages and plots."""
