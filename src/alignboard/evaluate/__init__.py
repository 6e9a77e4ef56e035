"""Asking models and judges: generation, judging, lm-eval's benchmarks, and who is compared with whom."""
