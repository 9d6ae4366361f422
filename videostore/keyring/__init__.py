"""Holds hour keys: makes them ahead, publishes one half, destroys the other at the deadline."""
