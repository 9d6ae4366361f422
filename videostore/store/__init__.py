"""Keeps the sealed bytes of segments: a directory, or any S3."""
