"""Engines: whatever answers prompts, behind one interface (`rows.Engine`)."""
