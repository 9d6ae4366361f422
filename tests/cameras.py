"""Synthetic cameras for the tests, on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from videostore.synthetic.server import SyntheticCamera, SyntheticServer
from videostore.synthetic.stream import stream

LOOP = 10  # seconds


@contextmanager
def serving(*paths: str, **faults: object) -> Iterator[SyntheticServer]:
    """Serve a camera at each path. A path ``user:password@path`` wants a login."""
    cameras = []
    for path in paths:
        login, _, name = path.rpartition("@")
        user, _, password = login.partition(":")
        cameras.append(SyntheticCamera(name, stream(LOOP), user, password, **faults))  # type: ignore[arg-type]
    with SyntheticServer(cameras) as server:
        yield server


@contextmanager
def web_server() -> Iterator[int]:
    """Be something that is no camera, for one connection; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
