"""From a judge's reply to verdicts."""
