"""A receiver of our own for the cameras that most sites have: RTSP over TCP or TLS, H.264, H.265, AAC, G.711.

Parsers are pure and are fed bytes; ``loop`` is the one thread that reads all connections of a process,
``source`` the adapter of the port. Whatever is not understood is left to libav: see ``choice``.
"""
