"""Plans: what they declare, what that means, and their graph of jobs."""
