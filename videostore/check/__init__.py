"""Verifies the invariants on a live site by a path of its own, not by the code that enforces them."""
