"""A clock that a test sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from videostore.domain.clock import Doubt, Reading


class SettableClock:
    """Port Clock. ``doubt_until`` makes the reading an interval from ``at`` to it."""

    def __init__(self, at: datetime = datetime(2026, 11, 24, 12, tzinfo=UTC)) -> None:
        self.at = at
        self.doubt_until: datetime | None = None

    def now(self) -> datetime:
        return self.at

    def read(self) -> Reading:
        if self.doubt_until is None:
            return Reading(self.at, self.at)
        return Reading(self.at, self.doubt_until, Doubt.JUMPED_AHEAD)

    def passes(self, length: timedelta) -> None:
        self.at += length
