"""What a checkpoint is: how it is loaded and what identifies it."""
