"""What stops a training that would be silently wrong: before its first step, on its way, and after its last."""
