"""How often something may be tried: a sliding window for each name, in memory."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from threading import Lock

from videostore.domain.errors import TooManyRequests

_NAMES = 10_000
"""Names that are remembered; beyond, those that were longest without a try are forgotten first."""


class Rate:
    """At most ``limit`` notes in ``window`` for each name; safe to share between threads."""

    def __init__(self, limit: int, window: timedelta) -> None:
        self._limit = limit
        self._window = window
        self._notes: dict[str, deque[datetime]] = {}
        self._lock = Lock()

    def check(self, name: str, *, now: datetime) -> None:
        """Raise TooManyRequests if ``name`` was noted too often."""
        with self._lock:
            if len(self._recent(name, now)) >= self._limit:
                raise TooManyRequests(
                    "too many attempts from here", hint=f"Wait {self._window.total_seconds():.0f} seconds."
                )

    def note(self, name: str, *, now: datetime) -> None:
        """Count one for ``name``."""
        with self._lock:
            notes = self._recent(name, now)
            notes.append(now)
            self._notes.pop(name, None)
            self._notes[name] = notes
            if len(self._notes) > _NAMES:
                del self._notes[next(iter(self._notes))]

    def spend(self, name: str, *, now: datetime) -> None:
        """Count one for ``name``, or raise TooManyRequests."""
        self.check(name, now=now)
        self.note(name, now=now)

    def _recent(self, name: str, now: datetime) -> deque[datetime]:
        notes = self._notes.get(name, deque(maxlen=self._limit))
        while notes and not timedelta(0) <= now - notes[0] <= self._window:
            notes.popleft()
        return notes
