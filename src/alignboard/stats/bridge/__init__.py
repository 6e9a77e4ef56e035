"""Scores of one judge from those of another: fits, their validation, and estimates with prediction intervals."""
