"""Judges: what they declare, what they are shown, what they said, and what that means."""
