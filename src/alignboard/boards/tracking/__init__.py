"""Boards in experiment trackers: W&B, Trackio, MLflow and TensorBoard."""
