"""What a checkpoint is: how it is loaded, what identifies it, and the tiny ones of the demo."""
