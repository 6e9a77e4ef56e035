"""lm-eval's benchmarks: tasks, the model wrapper, runs."""
