"""The trust report of judges."""
