"""From pairs of responses to a judge's prompts."""
