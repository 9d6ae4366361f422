"""The policies in force: what the files say now, and what earlier ones leave of it for what exists.

Loosening never reaches existing footage (invariant 2), so a policy is on record in the ledger, with each
camera's keep, before anything is judged by it; what was shorter before is folded from there.
See docs/design/0014-who-is-kept-how-long.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from videostore.domain.errors import DiskError, VideostoreError
from videostore.domain.ledger import Event, Json, Record, canonical
from videostore.domain.retention import FOREVER, Kind, Loaded, RetentionPolicy
from videostore.domain.segment import MICROSECOND
from videostore.durable import remove_file, write_file
from videostore.ports import Clock, Ledger
from videostore.retention.report import ACTOR, log

_AGAIN_SECONDS = 60


class PoliciesOnRecord:
    """Asks ``wanted`` each time, and the ledger when that changed.

    While the clock is in doubt, or the ledger cannot be asked or written, what is shorter counts at once and
    what is longer not yet. ``waiting`` is a file for what could not be written: a tightening that is taken
    back before the ledger takes records again has been in force all the same, also if the process dies.
    """

    def __init__(
        self,
        wanted: Callable[[], Mapping[Kind, RetentionPolicy]],
        *,
        ledger: Callable[[], Ledger],
        clock: Clock,
        waiting: Path | None = None,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted = wanted
        self._ledger = ledger
        self._clock = clock
        self._waiting = waiting
        self._elapsed = elapsed
        self._lock = Lock()
        self._taken: Mapping[Kind, RetentionPolicy] = {}
        self._in_force: Mapping[Kind, RetentionPolicy] = {}
        self._loaded: dict[Kind, list[Loaded]] = {kind: [] for kind in Kind}
        self._again_at: float | None = None

    def __call__(self) -> Mapping[Kind, RetentionPolicy]:
        with self._lock:
            wanted = self._wanted()
            again = self._again_at is not None and self._elapsed() >= self._again_at
            if again or wanted != self._taken:
                self._again_at = None
                self._in_force = self._take(wanted)
                self._taken = dict(wanted)
            return self._in_force

    def _take(self, wanted: Mapping[Kind, RetentionPolicy]) -> dict[Kind, RetentionPolicy]:
        waiting = self._read_waiting()
        try:
            self._loaded = self._read()
            for policy in (*waiting, *wanted.values()):
                self._put_on_record(policy, self._loaded[policy.kind])
            if waiting and self._waiting:
                remove_file(self._waiting)
            return {kind: policy.bounded(self._loaded[kind]) for kind, policy in wanted.items()}
        except VideostoreError as error:
            self._again_at = self._elapsed() + _AGAIN_SECONDS
            log.error("policy.not-on-record", error=str(error), hint=error.hint)
        waiting += self._wait(wanted.values(), waiting)
        loaded = {
            kind: [*self._loaded[kind], *(_as_loaded(one) for one in waiting if one.kind is kind)]
            for kind in wanted
        }
        return {kind: policy.bounded(loaded[kind]) for kind, policy in wanted.items()}

    def _wait(
        self, wanted: Iterable[RetentionPolicy], waiting: Sequence[RetentionPolicy]
    ) -> list[RetentionPolicy]:
        """Keep what cannot go on record now, in the order in which it came into force."""
        last = {kind: loaded[-1].revision for kind, loaded in self._loaded.items() if loaded}
        last |= {policy.kind: policy.revision for policy in waiting}
        new = [policy for policy in wanted if last.get(policy.kind) != policy.revision]
        if new and self._waiting:
            content: list[Json] = [policy.to_json() for policy in (*waiting, *new)]
            try:
                write_file(self._waiting, canonical(content))
            except DiskError as error:  # as it was before there was such a file
                log.error("policy.not-kept", error=str(error), hint=error.hint)
        return new

    def _read_waiting(self) -> list[RetentionPolicy]:
        if self._waiting is None or not self._waiting.exists():
            return []
        try:
            return [RetentionPolicy.from_json(one) for one in json.loads(self._waiting.read_bytes())]
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("policy.not-kept", error=f"{self._waiting}: {error}", hint="Remove the file.")
            return []

    def _read(self) -> dict[Kind, list[Loaded]]:
        found: dict[Kind, list[Loaded]] = {kind: [] for kind in Kind}
        for record in self._ledger().find(Event.POLICY_LOADED):
            found[Kind(str(record.body["kind"]))].append(_loaded(record))
        return found

    def _put_on_record(self, policy: RetentionPolicy, loaded: list[Loaded]) -> None:
        """Write that ``policy`` is in force from now on, unless it is the last on record.

        A loosening ends the bounds of what was, so it waits until the clock is believed.
        """
        if loaded and loaded[-1].revision == policy.revision:
            return
        reading = self._clock.read()
        if loaded and reading.doubt is not None:
            self._again_at = self._elapsed() + _AGAIN_SECONDS
            log.warning("policy.waits-for-clock", kind=policy.kind.value, doubt=reading.doubt.value)
            policy = policy.shorter_of(loaded[-1])
            if loaded[-1].revision == policy.revision:
                return
        since = reading.earliest.isoformat()
        body: dict[str, Json] = {**policy.to_json(), "revision": policy.revision, "since": since}
        loaded.append(_loaded(self._ledger().append(Event.POLICY_LOADED, actor=ACTOR, body=body)))


def _as_loaded(policy: RetentionPolicy) -> Loaded:
    """Return a policy that waits: it bounds without end, for nothing loosens that is not on record."""
    return Loaded(FOREVER, policy.keep, policy.shorter, policy.revision)


def last_on_record(records: Iterable[Record]) -> Mapping[Kind, RetentionPolicy] | None:
    """Return the policies that were loaded last, with what earlier ones leave of them, None unless there is
    one of each kind. ``records`` are of ``policy.loaded``, in order."""
    last: dict[Kind, RetentionPolicy] = {}
    loaded: dict[Kind, list[Loaded]] = {kind: [] for kind in Kind}
    for record in records:
        policy = RetentionPolicy.from_json(record.body)
        last[policy.kind] = policy
        loaded[policy.kind].append(_loaded(record))
    if last.keys() != set(Kind):
        return None
    return {kind: policy.bounded(loaded[kind]) for kind, policy in last.items()}


def _loaded(record: Record) -> Loaded:
    body: Mapping[str, Any] = record.body
    return Loaded(
        since=datetime.fromisoformat(body["since"]) if "since" in body else record.at,
        keep=body["keep_us"] * MICROSECOND,
        shorter={UUID(name): keep * MICROSECOND for name, keep in body.get("shorter_us", {}).items()},
        revision=body["revision"],
    )
