"""Takes signed checkpoints to places that the site cannot change, so that a lost tail or a fork shows; and
reads what they kept.

A directory on a file share here; a bucket with object lock is in ``store``. What is kept is one file for each
checkpoint: the JSON line of docs/reference/proofs.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event as Stop

from videostore import telemetry
from videostore.domain.errors import ConfigInvalid, PromiseBroken, VideostoreError
from videostore.domain.ledger import Checkpoint, Event, Record, canonical, records_named
from videostore.durable import disk_errors, sync_directory
from videostore.ledger.files import FileLedger
from videostore.ledger.lines import checkpoints_of
from videostore.ports import Anchor

_AGAIN = timedelta(minutes=1)
log = telemetry.logger("ledger")


class DirectoryAnchor:
    """Port Anchor, in a directory that must be there: a share that is not mounted is an error."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, name: str, line: bytes) -> None:
        self._mounted()
        path = self._directory / name
        with disk_errors(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440)
            with os.fdopen(descriptor, "wb") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self._directory)

    def kept(self) -> Iterator[tuple[str, bytes]]:
        self._mounted()
        found = self._directory.glob("*.json")
        for path in sorted(found, key=lambda path: records_named(path.name), reverse=True):
            with disk_errors(path):
                yield path.name, path.read_bytes()

    def _mounted(self) -> None:
        if not self._directory.is_dir():
            raise ConfigInvalid(
                f"{self._directory} is not there to keep checkpoints",
                hint="Mount the share, or make the directory where it shall be.",
            )


@dataclass(frozen=True, slots=True)
class Outside:
    """What was kept elsewhere: checkpoints, their signatures not checked; the places that keep something else
    as well; and why each of the others could not be read."""

    checkpoints: Sequence[Checkpoint] = ()
    spoilt: Sequence[str] = ()
    unread: Mapping[str, VideostoreError] = field(default_factory=dict)


def read_anchors(places: Mapping[str, Callable[[], Anchor]]) -> Outside:
    """Read every place; one that cannot be read keeps nothing of the others back."""
    found: list[Checkpoint | None] = []
    spoilt: list[str] = []
    unread: dict[str, VideostoreError] = {}
    for name, open_place in places.items():
        try:
            here = [one for _, file in open_place().kept() for one in checkpoints_of(file)]
        except VideostoreError as error:
            unread[name] = error
            continue
        found += here
        if None in here:
            spoilt.append(name)
    return Outside([one for one in found if one], spoilt, unread)


def must_be_newest(ledger: FileLedger, places: Mapping[str, Anchor]) -> None:
    """Raise PromiseBroken if one of ``places`` kept what a ledger put back, or forked, does not have: of the
    longest ledger there. A place that cannot be read says nothing. Raises LedgerError."""
    for name, place in places.items():
        try:
            longest = _longest(ledger, place)
        except VideostoreError as error:
            log.info("checkpoint.not-read", place=name, error=str(error))
            continue
        for one in longest:
            if not ledger.holds(one):
                raise PromiseBroken(
                    f"{name} keeps that the ledger had {one.size} records on {one.at:%Y-%m-%d %H:%M}, which "
                    "are not in this one: it is older, or another",
                    hint="What was withdrawn since would stand again. Put the newer ledger back; if it is "
                    "lost, restore the site from its newest backup (docs/guide/recovery.md).",
                )


def _longest(ledger: FileLedger, place: Anchor) -> list[Checkpoint]:
    """Return the checkpoints of the longest ledger in a place. Who may write there may write anything: one
    counts that the ledger's key signed, under the name that is its own."""
    reconciled = list(ledger.find(Event.SITE_RECONCILED))
    found: list[Checkpoint] = []
    for name, file in place.kept():
        if found and records_named(name) < found[0].size:
            break
        named = (one for one in checkpoints_of(file) if one and one.file_name == name and ledger.signed(one))
        found += not_lost(named, reconciled)
    return found


def not_lost(checkpoints: Iterable[Checkpoint], reconciled: Iterable[Record]) -> list[Checkpoint]:
    """Leave out what pins more than the backup had that a site came back from: it was lost with its host, and
    its record ``site.reconciled`` says so."""
    restored = [(record.at, int(str(record.body["records"]))) for record in reconciled]
    return [one for one in checkpoints if not any(one.at < at and one.size > left for at, left in restored)]


class Anchoring:
    """Signs a checkpoint now and then and takes it to every place; one that fails never stops the others."""

    def __init__(self, ledger: FileLedger, places: Mapping[str, Anchor], *, interval: timedelta) -> None:
        self._ledger = ledger
        self._places = places
        self._interval = interval
        for place in places:
            telemetry.CHECKPOINT_ANCHORED.labels(place=place).set(0)

    def run(self, stop: Stop) -> None:
        """Do it each ``interval`` until ``stop`` is set; again after a minute where a place failed."""
        while not stop.is_set():
            try:
                _, failures = self.once()
            except VideostoreError as error:
                log.error("checkpoint.failed", error=str(error), hint=error.hint)
                failures = {"ledger": error}
            stop.wait((min(self._interval, _AGAIN) if failures else self._interval).total_seconds())

    def once(self) -> tuple[Checkpoint, Mapping[str, VideostoreError]]:
        """Sign a checkpoint and take it to every place. Returns it, and why each place that failed did.

        Raises PromiseBroken if one of them kept that the ledger was another, or longer.
        """
        must_be_newest(self._ledger, self._places)
        checkpoint = self._ledger.checkpoint()
        line = canonical(checkpoint.to_json()) + b"\n"
        failures: dict[str, VideostoreError] = {}
        for place, anchor in self._places.items():
            try:
                anchor.keep(checkpoint.file_name, line)
            except VideostoreError as error:
                failures[place] = error
                log.error("checkpoint.not-anchored", place=place, error=str(error), hint=error.hint)
            else:
                telemetry.CHECKPOINT_ANCHORED.labels(place=place).set(checkpoint.at.timestamp())
        return checkpoint, failures
