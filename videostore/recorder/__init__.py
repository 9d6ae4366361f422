"""Records cameras: a stream is cut at keyframes, sealed, spooled and uploaded. Never holds a private key."""
