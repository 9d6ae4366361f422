"""Entry/exit records: kept for at most 24 hours."""
