"""A setting that is followed while a role runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Generic, TypeVar

from videostore import telemetry
from videostore.domain.errors import VideostoreError

Value = TypeVar("Value")
log = telemetry.logger("config")


class Followed(Generic[Value]):
    """Calls ``read`` again whenever ``path`` or one of ``also`` changed. A file that broke is said once and
    the last good value stays: a slip in an editor must not stop retention. The first reading raises, unless
    ``otherwise`` tells what was good before. Threads may ask at once: none gets what was in force before the
    change while another reads."""

    def __init__(
        self,
        path: Path,
        read: Callable[[], Value],
        *also: Path,
        otherwise: Callable[[], Value | None] = lambda: None,
    ) -> None:
        self._path = path
        self._paths = (path, *also)
        self._read = read
        self._reading = RLock()  # reading may log, which asks for the level, which may be this very setting
        self._stamp = self._look()
        self._value = self._first(otherwise)

    def __call__(self) -> Value:
        with self._reading:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._value = self._read()
                    log.info("file.read", path=str(self._path))
                except VideostoreError as error:
                    log.error("file.broken", path=str(self._path), error=str(error), hint=error.hint)
            return self._value

    def _first(self, otherwise: Callable[[], Value | None]) -> Value:
        try:
            return self._read()
        except VideostoreError as error:
            before = otherwise()
            if before is None:
                raise
            log.error("file.broken", path=str(self._path), error=str(error), hint=error.hint)
            return before

    def _look(self) -> list[tuple[int, ...] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes with a file. An editor empties it and writes it within one tick of the clock of many
    kernels (4 ms): who read it in between knows by its size that there is more."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
