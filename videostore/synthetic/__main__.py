"""Synthetic cameras to try a site with: ``python -m videostore.synthetic lobby user:password@gate``."""

from __future__ import annotations

import sys
from threading import Event

from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import stream

PORT = 8554


def main(words: list[str]) -> None:
    """Serve a camera for each word, ``NAME`` or ``USER:PASSWORD@NAME``, until Ctrl-C."""
    if not words or any(word.startswith("-") for word in words):
        sys.exit(f"{__doc__}\nServes them at rtsp://127.0.0.1:{PORT} until Ctrl-C.")
    cameras, film = [], stream()
    for login, _, name in (word.rpartition("@") for word in words):
        user, _, password = login.partition(":")
        cameras.append(SyntheticCamera(name, film, user, password))
    with SyntheticServer(cameras, port=PORT) as server:
        for camera in cameras:
            sys.stdout.write(f"{server.url(camera.path)}\n")
        sys.stdout.flush()
        Event().wait()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(0)
