"""Recipe to adapter: schema, losses, preference pairs, pre-flight checks, and TRL underneath."""
