"""How often something may be tried: a bucket for each name that leaks evenly, in memory."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock

from videostore.domain.errors import TooManyRequests

_NAMES = 10_000
"""Names that are remembered; beyond, those that were longest without a try are forgotten first."""


def counted(address: str) -> str:
    """Return under which name ``address`` is counted: whoever has one of IPv6 has its /64 (RFC 6177)."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    return str(found.ipv4_mapped or ip_network((found.packed[:8] + bytes(8), 64)))


class Rate:
    """``limit`` at once for each name, and as many again in each ``window``; safe to share between threads.

    ``now`` counts seconds of any clock, always the same one.
    """

    def __init__(self, limit: int, window: timedelta) -> None:
        self._limit = limit
        self._leak = limit / window.total_seconds()
        self._levels: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def check(self, name: str, *, now: float) -> None:
        """Raise TooManyRequests if ``name`` was noted too often."""
        with self._lock:
            above = self._level(name, now) + 1 - self._limit
        if above > 0:
            raise TooManyRequests(
                "too many attempts from here", hint=f"Wait {above / self._leak + 1:.0f} seconds."
            )

    def note(self, name: str, *, now: float) -> None:
        """Count one for ``name``."""
        with self._lock:
            level = self._level(name, now) + 1
            self._levels.pop(name, None)
            self._levels[name] = level, now
            if len(self._levels) > _NAMES:
                del self._levels[next(iter(self._levels))]

    def spend(self, name: str, *, now: float) -> None:
        """Count one for ``name``, or raise TooManyRequests."""
        self.check(name, now=now)
        self.note(name, now=now)

    def _level(self, name: str, now: float) -> float:
        level, at = self._levels.get(name, (0.0, now))
        return max(0.0, level - max(0.0, now - at) * self._leak)
