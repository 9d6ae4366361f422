"""The one thread that reads all cameras of a process.

Reads are gathered: after each round it rests for ``REST``, so that one read takes in all that a camera sent
meanwhile. A frame's time of arrival is therefore known to that precision; the earlier end counts, so that no
frame seems younger than it is. Others are woken while it rests, not while it reads: there is one interpreter.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock, Thread
from typing import Protocol

from videostore.recorder.native.connection import BUFFER

REST = 0.12  # seconds; a frame of most cameras comes each 0.04
_LONGEST_WAIT = 0.25  # seconds
_LOOK_AFTER = 0.5  # seconds


def arrival(since: datetime, now: datetime, later: float) -> datetime:
    """Return when a frame arrived, at the earliest. It was read at ``now``, nothing of that read had come at
    ``since``, and the frame is shown ``later`` seconds than the first of the read: no camera sends what it
    has not seen. A loop that was held up so stamps what came meanwhile as if it had not been."""
    return min(max(since, now), since + timedelta(seconds=max(0.0, later)))


class Reader(Protocol):
    """What the loop reads. All are called in its thread; none may wait or raise."""

    def fileno(self) -> int: ...

    def readable(self, buffer: memoryview, since: datetime, now: datetime) -> None:
        """Read what came after ``since``, most of it until ``now``."""

    def rest(self, monotonic: float) -> None:
        """Called when all were read: time to hand over."""

    def look_after(self, monotonic: float) -> None:
        """Called about twice a second: time for keepalives, and to see that nothing came."""


class Loop:
    """``now`` tells the host's time. Its thread lives for as long as there is something to read."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._poll = select.epoll()
        self._readers: dict[int, Reader] = {}
        self._thread: Thread | None = None
        self._lock = Lock()

    def add(self, reader: Reader) -> None:
        with self._lock:
            self._readers[reader.fileno()] = reader
            self._poll.register(reader.fileno(), select.EPOLLIN)
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._run, name="ingest", daemon=True)
                self._thread.start()

    def remove(self, reader: Reader) -> None:
        """To be called before its file is closed."""
        with self._lock:
            if self._readers.pop(reader.fileno(), None) is not None:
                self._poll.unregister(reader.fileno())

    def _idle(self) -> bool:
        with self._lock:
            if self._readers:
                return False
            self._thread = None
            return True

    def _run(self) -> None:
        buffer = memoryview(bytearray(BUFFER))
        now = self._now()
        looked = 0.0
        while not self._idle():
            ready, since = self._poll.poll(0), now
            if ready:
                now = self._now()
            else:
                ready = self._poll.poll(_LONGEST_WAIT)
                since = now = self._now()
            found = [self._readers.get(number) for number, _ in ready]
            readers = [reader for reader in found if reader is not None]
            for reader in readers:
                reader.readable(buffer, since, now)
            monotonic = time.monotonic()
            for reader in readers:
                reader.rest(monotonic)
            if monotonic - looked >= _LOOK_AFTER:
                looked = monotonic
                for reader in list(self._readers.values()):
                    reader.look_after(monotonic)
            time.sleep(REST)
