"""Index of segment facts: adapters of the port Catalogue."""
