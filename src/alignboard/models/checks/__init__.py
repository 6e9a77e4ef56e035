"""What would be wrong with a checkpoint, before its weights are loaded."""
