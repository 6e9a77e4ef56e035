"""The demo: its instruction world, tiny checkpoints, judges and tasks, registered as a plug-in."""
