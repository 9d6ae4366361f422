"""Deletes everything before its deadline, and proves it."""
