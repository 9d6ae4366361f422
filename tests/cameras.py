"""Synthetic cameras for the tests, on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
