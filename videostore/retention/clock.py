"""The guarded clock: the host's time, believed only while it moves as time does.

Three yardsticks (rules in ``domain.clock``):

- within a running process, CLOCK_BOOTTIME, which no one can set and which goes on while the
  machine sleeps: the host's clock must advance with it;
- across restarts, the mark: the highest trusted time, kept on disk;
- where the store has a clock of its own, that: at the start and each ten minutes, for many small steps
  become a large one.

While in doubt, the yardstick goes on at the true pace, so what is due by it is still destroyed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

from videostore.domain.clock import Doubt, Reading, read
from videostore.domain.errors import ConfigInvalid, StoreError
from videostore.durable import write_file

_ASK_EACH_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Mark:
    """What is kept on disk. ``confirmations`` counts the times an operator vouched for the host's clock;
    ``overruled_s`` is how far ahead of the host a witness was that the operator knows to be wrong."""

    trusted: datetime
    confirmations: int = 0
    overruled_s: float | None = None


class GuardedClock:
    """Port Clock. ``witness`` returns the store's own time, or None.

    Reading never writes; only retention moves the mark, by ``advance``.
    """

    def __init__(
        self,
        mark: Path,
        *,
        max_jump: timedelta,
        max_off: timedelta,
        witness: Callable[[], datetime | None] = lambda: None,
        host: Callable[[], datetime] = lambda: datetime.now(UTC),
        elapsed: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._mark = mark
        self._max_jump = max_jump
        self._max_off = max_off
        self._witness = witness
        self._host = host
        self._elapsed = elapsed
        self._lock = Lock()
        self._anchor: tuple[datetime, float] | None = None
        self._began: float | None = None
        self._asked = float("-inf")
        self._seen: tuple[datetime, float] | None = None
        self._confirmations = -1
        self._earliest: tuple[datetime, float] | None = None
        self._loaded: tuple[tuple[int, ...], Mark] | None = None

    def now(self) -> datetime:
        return self._host()

    def read(self) -> Reading:
        return self._read()[0]

    def received(self) -> datetime:
        """Return when what arrives now was received: the earliest it can be, for its life is counted from it,
        and a host set ahead would lengthen that.

        Asked for each packet, so neither file nor network is: the last reading goes on at the true pace.
        """
        if self._earliest is None:
            self.read()
        host, last = self._host(), self._earliest
        return host if last is None else min(host, last[0] + timedelta(seconds=self._elapsed() - last[1]))

    def _read(self) -> tuple[Reading, float | None]:
        """Return the reading, and by how much the witness is overruled in it.

        Then destruction goes by the host, opening by the later of both, and the doubt stays.
        """
        with self._lock:
            elapsed, host = self._elapsed(), self._host()
            reading, overruled = self._judge(host, elapsed)
            self._earliest = reading.earliest, elapsed
            return reading, overruled

    def _judge(self, host: datetime, elapsed: float) -> tuple[Reading, float | None]:
        mark = self._load()
        if self._began is None or (mark is not None and mark.confirmations != self._confirmations):
            self._confirmations = mark.confirmations if mark else -1
            self._anchor, self._began = None, elapsed
        asked = self._witnesses(elapsed)
        overruled = self._overruled(mark, asked, host)
        witnesses = asked if overruled is None else []
        if self._anchor is None:  # not trusted yet since the start
            ran = timedelta(seconds=elapsed - self._began)
            reading = read(
                host,
                mark=mark.trusted + ran if mark else None,
                witnesses=witnesses,
                max_step=self._max_off,
                max_apart=self._max_jump,
            )
        else:
            base = self._anchor[0] + timedelta(seconds=elapsed - self._anchor[1])
            # A witness that agrees does not excuse a jump: the running machine knows how long it ran.
            reading = read(host, mark=base, max_step=self._max_jump)
            if reading.doubt is None:
                reading = read(host, mark=base, witnesses=witnesses, max_step=self._max_jump)
        if reading.doubt is None:
            self._anchor = host, elapsed
            if overruled is not None and asked:
                reading = Reading(host, max(host, *asked), Doubt.WITNESS_DISAGREES)
            return reading, overruled
        earliest, latest = min(reading.earliest, *asked, host), max(reading.latest, *asked, host)
        return Reading(earliest, latest, reading.doubt), None

    def _overruled(self, mark: Mark | None, witnesses: Sequence[datetime], host: datetime) -> float | None:
        """Return by how much the witness is off, if an operator said so and it is still that much. One that
        cannot be asked leaves what was said."""
        said = mark.overruled_s if mark else None
        if said is None or not witnesses:
            return said
        moved = (witnesses[0] - host).total_seconds() - said
        return said if abs(moved) <= self._max_jump.total_seconds() else None

    def advance(self) -> Reading:
        """Read, and move the mark up if the reading is trusted. A witness that agrees again is overruled no
        more."""
        reading, overruled = self._read()
        mark = self._load()
        if reading.doubt is None or overruled is not None:
            trusted = max(reading.earliest, mark.trusted) if mark else reading.earliest
            moved = Mark(trusted, mark.confirmations if mark else 0, overruled)
            if moved != mark:
                self._store(moved)
        return reading

    def against(self) -> datetime | None:
        """Return the witness's time, if it is too far from the host's to be of one mind with it."""
        with self._lock:
            self._asked = float("-inf")
            host, witnesses = self._host(), self._witnesses(self._elapsed())
        return next((one for one in witnesses if abs(one - host) > self._max_jump), None)

    def confirm(self, *, overrule: bool = False) -> Reading:
        """An operator vouches for the host's clock as it stands now: it is trusted from here on.

        With ``overrule`` also against a witness: destruction goes by the host, for as long as the witness
        stays as far off as it is. What the witness calls due still opens for nobody.
        """
        host, witness = self._host(), self.against()
        off = (witness - host).total_seconds() if overrule and witness is not None else None
        try:
            mark = self._load()
            confirmations = mark.confirmations + 1 if mark else 1
        except ConfigInvalid:  # a mark beyond repair: a number no running process has seen
            confirmations = int(host.timestamp())
        self._store(Mark(host, confirmations, off))
        return self.read()

    def _witnesses(self, elapsed: float) -> list[datetime]:
        """Return what the witness would say now: between two questions it goes on at the true pace."""
        if elapsed - self._asked > _ASK_EACH_SECONDS:
            self._asked = elapsed
            try:
                witness = self._witness()
            except StoreError:
                witness = None
            if witness is not None:
                self._seen = witness, elapsed
        return [self._seen[0] + timedelta(seconds=elapsed - self._seen[1])] if self._seen else []

    def _load(self) -> Mark | None:
        """Return the mark as it stands; the file is read again when it was replaced or written to."""
        try:
            found = self._mark.stat()
            stamp = found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
            if self._loaded is None or self._loaded[0] != stamp:
                self._loaded = stamp, self._parsed()
            return self._loaded[1]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def _parsed(self) -> Mark:
        try:
            content = json.loads(self._mark.read_bytes())
            trusted = datetime.fromisoformat(content["trusted"])
            return Mark(trusted, content["confirmations"], content.get("overruled_s"))
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ConfigInvalid:
        return ConfigInvalid(
            f"the clock's mark {self._mark} cannot be read: {error}",
            hint="Check the host's clock, then run `videostore retention confirm-clock`.",
        )

    def _store(self, mark: Mark) -> None:
        content = {
            "trusted": mark.trusted.isoformat(),
            "confirmations": mark.confirmations,
            "overruled_s": mark.overruled_s,
        }
        write_file(self._mark, json.dumps(content).encode())
