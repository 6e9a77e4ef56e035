"""The demo's annotator, and its judge model."""
