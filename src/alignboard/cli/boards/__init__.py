"""Commands that make boards, draw them, show them and take a person's verdicts."""
