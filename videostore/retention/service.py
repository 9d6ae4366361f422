"""Runs sweeps for as long as the site lives: at the latest each interval, and whenever a key is due."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import partial
from threading import Event

from videostore import telemetry
from videostore.retention.clock import GuardedClock
from videostore.retention.report import SweepReport, log
from videostore.retention.sweep import Sweep

_SHORTEST = timedelta(milliseconds=200)


class RetentionService:
    """The loop. It ends only when told to: no error of a pass stops the next one."""

    def __init__(self, sweep: Sweep, *, clock: GuardedClock, interval: timedelta) -> None:
        self._sweep = sweep
        self._clock = clock
        self._interval = interval

    def run(self, stop: Event) -> None:
        """Sweep until ``stop`` is set."""
        while not stop.is_set():
            started = self._clock.now()
            due: datetime | None = None
            try:
                self._clock.advance()
                report = self._sweep.run(partial(self._has_time, stop, time.monotonic()))
                _say(report)
                due = started if report.interrupted else report.next_due
            except Exception as error:  # noqa: BLE001 - retention outlives whatever one pass meets
                telemetry.SWEEPS.labels(outcome="failed").inc()
                log.error("sweep.failed", error=f"{type(error).__name__}: {error}")
            stop.wait(self._pause(started, due).total_seconds())

    def _has_time(self, stop: Event, began: float) -> bool:
        return not stop.is_set() and time.monotonic() - began < self._interval.total_seconds()

    def _pause(self, started: datetime, due: datetime | None) -> timedelta:
        now = self._clock.now()
        pause = self._interval - (now - started)
        if due is not None:
            pause = min(pause, due - now)
        return max(pause, _SHORTEST)


def _say(report: SweepReport) -> None:
    if report.segments_deleted or report.keys_destroyed or report.errors or report.copies_removed:
        log.info(
            "sweep.done",
            keys_destroyed=len(report.keys_destroyed),
            segments_deleted=report.segments_deleted,
            bytes_deleted=report.bytes_deleted,
            certificates=len(report.certificates),
            copies_removed=report.copies_removed,
            errors=len(report.errors),
        )
