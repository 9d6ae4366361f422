"""Oversight: broken glasses that wait for a second person, suspected breaches, and the ledger itself."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Lock

from videostore import telemetry
from videostore.domain import access, breach
from videostore.domain.access import AccessPolicy, Grant, decide_review
from videostore.domain.breach import Breach, Suspicion, Watch, WatchPolicy
from videostore.domain.camera import Camera
from videostore.domain.errors import RequestInvalid
from videostore.domain.ledger import Event, Json, Record
from videostore.gate.bookmark import Bookmark, Reader
from videostore.gate.rules import Rules
from videostore.ports import Ledger
from videostore.signing import SigningKey

log = telemetry.logger("gate")

_MOST = 1000
SHOWN = timedelta(hours=24)
"""How long the metric tells of a suspicion; the ledger tells of it for good."""
LONGEST = 200
"""Characters of a reference, a reason or a verdict."""


@dataclass(slots=True)
class Watched:
    """What was seen so far; ``late`` are the newest suspicions."""

    watch: Watch = field(default_factory=Watch)
    late: deque[Breach] = field(default_factory=deque)


def bookmark(directory: Path, key: SigningKey) -> Bookmark[Watched]:
    """Return what keeps what was seen in ``directory`` between two starts."""
    rules = [access, breach, sys.modules[__name__]]
    return Bookmark(directory / "watch.bookmark", Watched, key=key, rules=rules)


class Oversight:
    """What is looked at afterwards, and who looks. Safe to share between threads."""

    def __init__(
        self,
        rules: Rules,
        *,
        ledger: Ledger,
        policy: Callable[[], WatchPolicy],
        approvers: Callable[[], Mapping[str, str]],
        bookmark: Bookmark[Watched] | None = None,
    ) -> None:
        self._rules = rules
        self._ledger = ledger
        self._policy = policy
        self._approvers = approvers
        self._reader = Reader(ledger, Watched(), bookmark)
        self._noted: tuple[AccessPolicy, WatchPolicy, Mapping[str, str]] | None = None
        self._identified: Sequence[Camera] | None = None
        self._lock = Lock()

    def look(self) -> None:
        """Take in what was recorded since, and tell the metrics; record a policy of access that changed.

        Raises LedgerBroken or LedgerUnavailable.
        """
        self._rules.policy()
        now = self._rules.now()
        with self._lock:
            late = self._follow(now).late
            while late and late[0].at <= now - SHOWN:
                late.popleft()
            count = Counter(one.suspicion for one in late)
        for suspicion in Suspicion:
            telemetry.GATE_SUSPECTED_BREACHES.labels(suspicion=suspicion.value).set(count[suspicion])
        telemetry.GATE_GLASSES_UNREVIEWED.set(len(self._rules.book().unreviewed()))

    def noted(self, policy: AccessPolicy) -> AccessPolicy:
        """Return ``policy``, which the rules are about to go by, when it is on record: who loosens it for one
        request, or lets somebody in by an approver of his own, is found afterwards. Raises as ``look``."""
        approvers, watch = self._approvers(), self._policy()
        if (policy, watch, approvers) != self._noted:
            now = self._rules.now()
            with self._lock:
                known = self._follow(now).watch
                named: list[Json] = [f"{name} {key}" for name, key in sorted(approvers.items())]
                if named != known.approvers:
                    self._ledger.append(Event.APPROVERS_LOADED, actor="gate", body={"approvers": named})
                if (body := _on_record(policy, watch)) != known.access:
                    self._ledger.append(Event.ACCESS_LOADED, actor="gate", body=body)
                self._follow(now)
                self._noted = policy, watch, dict(approvers)
        return policy

    def identified(self, cameras: Sequence[Camera]) -> Sequence[Camera]:
        """Return ``cameras``, which are about to be found by their names, when it is on record what each is
        called, where it hangs and what it is recorded from. The same list is looked at once. Raises as
        ``look``."""
        if cameras is not self._identified:
            now = self._rules.now()
            with self._lock:
                known = self._follow(now).watch.cameras
                wanted = {str(camera.id): _identity(camera) for camera in cameras}
                wanted |= {
                    name: {**known[name], "state": "unlisted"} for name in known.keys() - wanted.keys()
                }
                changed = [body for name, body in wanted.items() if body != known.get(name)]
                if changed:
                    self._ledger.append_all([(Event.CAMERA_IDENTITY, "gate", body) for body in changed])
                self._follow(now)
                self._identified = cameras
        return cameras

    def keep(self) -> None:
        """Keep what was seen for the next start."""
        with self._lock:
            self._reader.keep()

    def _follow(self, now: datetime) -> Watched:
        policy = self._policy()
        for record in self._reader.new():
            seen = self._reader.state
            for one in seen.watch.take(record, policy):
                if one.at > now - SHOWN:
                    log.warning("breach.suspected", suspicion=one.suspicion.value)
                seen.late.append(one)
                if len(seen.late) > _MOST:
                    seen.late.popleft()
        return self._reader.state

    def unreviewed(self, staff_id: str) -> list[Grant]:
        """Return the grants taken by breaking the glass that nobody has looked at, oldest first."""
        self._rules.check(staff_id, "list-reviews", self._rules.right(staff_id))
        return self._rules.book().unreviewed()

    def review(self, staff_id: str, grant_id: str, verdict: str) -> None:
        """Close the review of a broken glass: by a second person, with what that person found."""
        grant = self._rules.book().grants.get(grant_id)
        decision = decide_review(
            grant, reviewer=self._rules.dossier(staff_id), policy=self._rules.policy(), now=self._rules.now()
        )
        self._rules.check(staff_id, "review", decision, grant_id=grant_id)
        body: dict[str, Json] = {"grant_id": grant_id, "verdict": one_line(verdict, "verdict")}
        self._ledger.append(Event.REVIEWED, actor=staff_id, body=body)

    def records(self, staff_id: str, *, last: int, event: Event | None) -> list[Record]:
        """Return the newest records. Who may see footage may read them; that they did is on record first."""
        self._rules.check(staff_id, "read-ledger", self._rules.right(staff_id))
        body: dict[str, Json] = {"last": last, "event": event.value if event else None}
        asked = self._ledger.append(Event.LEDGER_READ, actor=staff_id, body=body)
        found = self._ledger.find(event) if event else self._ledger.records(after=asked.sequence - last)
        return list(deque(found, maxlen=last))


def _identity(camera: Camera) -> dict[str, Json]:
    """Return what the ledger keeps of a camera in cameras.yaml; its address stays at the site."""
    return {
        "camera_id": str(camera.id),
        "name": camera.name,
        "group": camera.group,
        "place": camera.place,
        "source_sha256": sha256(camera.url.encode()).hexdigest(),
        "state": "removed" if camera.removed else "enabled" if camera.enabled else "disabled",
    }


def _on_record(policy: AccessPolicy, watch: WatchPolicy) -> dict[str, Json]:
    """Return what the ledger keeps of a policy of access, its approvers aside."""
    hours = watch.hours
    return {
        "notice_sha256": policy.notice_sha256,
        "max_span_s": int(policy.max_span.total_seconds()),
        "grant_lifetime_s": int(policy.grant_lifetime.total_seconds()),
        "second_person": [mode.value for mode in sorted(policy.second_person)],
        "break_glass": policy.break_glass,
        "watch": {
            "window_s": int(watch.window.total_seconds()),
            "refusals": watch.refusals,
            "out_of_purpose": watch.out_of_purpose,
            "footage_s": int(watch.footage.total_seconds()),
            "failed_logins": watch.failed_logins,
            "hours": f"{hours.start}-{hours.end} {hours.zone}" if hours else "",
        },
    }


def one_line(text: str, what: str) -> str:
    """Return a line that a person wrote for the ledger. Raises RequestInvalid."""
    text = text.strip()
    if not 1 <= len(text) <= LONGEST or not text.isprintable():
        raise RequestInvalid(
            f"the {what} must have 1 to {LONGEST} printable characters",
            hint="Say it in one line, such as 'fire alarm, building B, 2026-11-24'.",
        )
    return text
