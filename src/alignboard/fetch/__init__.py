"""Downloads: pinned, checksummed, resumed."""
