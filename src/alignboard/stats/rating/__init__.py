"""Ratings from pairwise comparisons: strengths with intervals that cluster by prompt, and what they rest on."""
