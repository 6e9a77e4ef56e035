"""The commands that judge: pairs, single outputs, and the trust report of judges."""
