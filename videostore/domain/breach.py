"""Suspected breaches of paragraph 27: what the ledger shows and a person should look at, as pure rules.

A suspicion refuses nothing and accuses nobody: it is where the misconduct procedure of paragraph 27 (d)
begins to read. Rules take records in their order and one policy; the same records give the same suspicions,
to the running gate and to an auditor with a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from videostore.domain.access import Reason
from videostore.domain.ledger import Event, Record


class Suspicion(StrEnum):
    """Every kind of suspected breach. Stable codes."""

    REFUSALS = "repeated-refusals"
    OUT_OF_PURPOSE = "out-of-purpose"
    BULK = "bulk-pull"
    OFF_HOURS = "off-hours"
    GUESSING = "guessed-logins"
    APPROVERS = "approvers-changed"
    LOOSENED = "access-loosened"
    REASSIGNED = "camera-reassigned"


@dataclass(frozen=True, slots=True)
class Hours:
    """When people work, on every day; ``start`` after ``end`` is a night shift."""

    start: time
    end: time
    zone: ZoneInfo

    def holds(self, moment: datetime) -> bool:
        local = moment.astimezone(self.zone).time()
        if self.start <= self.end:
            return self.start <= local < self.end
        return local >= self.start or local < self.end


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """How much of something, by one person within ``window``, is suspicious. ``footage`` is camera time."""

    window: timedelta = timedelta(hours=1)
    refusals: int = 10
    out_of_purpose: int = 3
    footage: timedelta = timedelta(hours=24)
    failed_logins: int = 10
    hours: Hours | None = None


@dataclass(frozen=True, slots=True)
class Breach:
    """One suspicion: by whom, when it became one, and the ledger records that it rests on."""

    suspicion: Suspicion
    actor: str
    at: datetime
    records: tuple[int, ...]


BEYOND_PURPOSE = frozenset(
    {
        Reason.INCIDENT_UNKNOWN,
        Reason.INCIDENT_CLOSED,
        Reason.GRANT_UNKNOWN,
        Reason.GRANT_NOT_YOURS,
        Reason.MODE_NOT_GRANTED,
        Reason.CAMERA_NOT_GRANTED,
        Reason.SPAN_NOT_GRANTED,
        Reason.BREAK_GLASS_NOT_ALLOWED,
    }
)
"""Refusals of a person who may see footage, but wanted what no incident or grant is for."""

_LOOKING = frozenset({Event.SEARCHED, Event.VIEWING, Event.EXPORT, Event.PRESENCE_READ})


@dataclass(slots=True)
class Watch:
    """Follows records, oldest first, and remembers no more than a window of them: in ``seen`` for each person
    when, how much, and in which record. ``approvers`` are those of the policy that was loaded last: who adds
    one to the file can make anybody approved. ``access`` is what it asks for besides; ``cameras`` is what
    each was called and came from, as last on record, ``named`` whose footage goes by a name."""

    approvers: list[str] | None = None
    access: Mapping[str, Any] | None = None
    cameras: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    seen: dict[Suspicion, dict[str, deque[tuple[datetime, float, int]]]] = field(default_factory=dict)

    def take(self, record: Record, policy: WatchPolicy) -> Iterator[Breach]:
        """Yield what this record makes a suspicion."""
        if record.event is Event.APPROVERS_LOADED:
            body: Mapping[str, Any] = record.body
            former, self.approvers = self.approvers, body.get("approvers")
            if former is not None and former != self.approvers:
                yield Breach(Suspicion.APPROVERS, record.actor, record.at, (record.sequence,))
        elif record.event is Event.ACCESS_LOADED:
            before, self.access = self.access, record.body
            if before is not None and loosened(before, record.body):
                yield Breach(Suspicion.LOOSENED, record.actor, record.at, (record.sequence,))
        elif record.event is Event.CAMERA_IDENTITY and self._reassigned(record.body):
            yield Breach(Suspicion.REASSIGNED, record.actor, record.at, (record.sequence,))
        for suspicion, actor, amount, limit in _signs(record, policy):
            seen = self.seen.setdefault(suspicion, {}).setdefault(actor, deque())
            while seen and record.at - seen[0][0] > policy.window:
                seen.popleft()
            seen.append((record.at, amount, record.sequence))
            if sum(one[1] for one in seen) >= limit:
                yield Breach(suspicion, actor, record.at, tuple(one[2] for one in seen))
                seen.clear()  # the next begins from nothing

    def _reassigned(self, body: Mapping[str, Any]) -> bool:
        """Say whether footage goes by another camera's name since, or comes from elsewhere. A name is free
        again when its camera was removed, and not when it is merely listed no more."""
        camera, name = str(body.get("camera_id")), str(body.get("name"))
        former = self.cameras.get(camera)
        self.cameras[camera] = body
        if body.get("state") in {"removed", "unlisted"}:
            if body["state"] == "removed":
                self.named = {held: one for held, one in self.named.items() if one != camera}
            return False
        owner = self.named.get(name, camera)
        self.named[name] = camera
        moved = former is not None and former.get("source_sha256") != body.get("source_sha256")
        return moved or owner != camera


def loosened(former: Mapping[str, Any], policy: Mapping[str, Any]) -> bool:
    """Say whether a policy of access, as it is on record, allows more than the former or watches less."""
    then, watch = former.get("watch") or {}, policy.get("watch") or {}
    return (
        not set(former.get("second_person") or ()) <= set(policy.get("second_person") or ())
        or bool(policy.get("break_glass") and not former.get("break_glass"))
        or _grew(former, policy, "max_span_s", "grant_lifetime_s")
        or _grew(then, watch, "refusals", "out_of_purpose", "footage_s", "failed_logins")
        or _grew(watch, then, "window_s")
        or bool(then.get("hours") and then["hours"] != watch.get("hours"))
    )


def _grew(former: Mapping[str, Any], now: Mapping[str, Any], *names: str) -> bool:
    return any(name in former and name in now and now[name] > former[name] for name in names)


def suspected(records: Iterable[Record], policy: WatchPolicy) -> Iterator[Breach]:
    """Yield every suspicion in a ledger, oldest first."""
    watch = Watch()
    for record in records:
        yield from watch.take(record, policy)


def _signs(record: Record, policy: WatchPolicy) -> Iterator[tuple[Suspicion, str, float, float]]:
    """Yield (suspicion, person, amount, limit) of one record."""
    body: Mapping[str, Any] = record.body
    match record.event:
        case Event.REFUSED:
            yield Suspicion.REFUSALS, record.actor, 1, policy.refusals
            if body.get("reason") in BEYOND_PURPOSE:
                yield Suspicion.OUT_OF_PURPOSE, record.actor, 1, policy.out_of_purpose
        case Event.LOGIN_REFUSED:
            yield Suspicion.GUESSING, str(body.get("staff_id")), 1, policy.failed_logins
        case Event.SERVED:
            yield Suspicion.BULK, record.actor, _seconds(body), policy.footage.total_seconds()
        case _:
            pass
    if record.event in _LOOKING and policy.hours is not None and not policy.hours.holds(record.at):
        yield Suspicion.OFF_HOURS, record.actor, 1, 1


def _seconds(body: Mapping[str, Any]) -> float:
    """Return how many seconds of footage a record of serving tells of."""
    spans = body.get("spans") or ()
    moments = ([datetime.fromisoformat(at) for at in span] for span in spans)
    return sum((end - start).total_seconds() for start, end in moments)
