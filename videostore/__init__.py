"""videostore: no frame is readable 30 days after its capture, and it can prove it."""

__version__ = "0.1.0"
