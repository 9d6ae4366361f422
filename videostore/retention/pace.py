"""Deletions at a bounded rate, so that those who record and look are served as well."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Lets ``per_second`` objects pass on average: each batch waits for the one before to be paid off."""

    def __init__(
        self,
        per_second: float,
        *,
        wait: Callable[[float], object] = time.sleep,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._wait = wait
        self._elapsed = elapsed
        self._free_at = elapsed()

    def take(self, count: int) -> None:
        """Wait for the turn of ``count`` objects."""
        now = self._elapsed()
        if self._free_at > now:
            self._wait(self._free_at - now)
        self._free_at = max(self._free_at, now) + count / self._per_second
