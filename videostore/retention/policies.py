"""The policies in force: what the files say now, and what earlier ones leave of it for what exists.

Loosening never reaches existing footage (invariant 2), so a policy is on record in the ledger, with each
camera's keep, before anything is judged by it; what was shorter before is folded from there.
See docs/design/0014-who-is-kept-how-long.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from threading import Lock
from typing import Any
from uuid import UUID

from videostore.domain.errors import VideostoreError
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import Kind, Loaded, RetentionPolicy
from videostore.domain.segment import MICROSECOND
from videostore.ports import Clock, Ledger
from videostore.retention.report import ACTOR, log

_AGAIN_SECONDS = 60


class PoliciesOnRecord:
    """Asks ``wanted`` each time, and the ledger when that changed.

    While the clock is in doubt, or the ledger cannot be asked or written, what is shorter counts at once and
    what is longer not yet.
    """

    def __init__(
        self,
        wanted: Callable[[], Mapping[Kind, RetentionPolicy]],
        *,
        ledger: Callable[[], Ledger],
        clock: Clock,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted = wanted
        self._ledger = ledger
        self._clock = clock
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
        try:
            self._loaded = self._read()
            for policy in wanted.values():
                self._put_on_record(policy, self._loaded[policy.kind])
        except VideostoreError as error:
            self._again_at = self._elapsed() + _AGAIN_SECONDS
            log.error("policy.not-on-record", error=str(error), hint=error.hint)
        return {kind: policy.bounded(self._loaded[kind]) for kind, policy in wanted.items()}

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
