"""Incidents, requests and grants as the ledger tells them: what is allowed and what is on record are one."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from videostore.domain import access, coverage, identity
from videostore.domain.access import Dossier, Grant, Incident, Mode, Purpose, Request
from videostore.domain.camera import CameraId
from videostore.domain.coverage import State, Stretch
from videostore.domain.errors import LedgerBroken
from videostore.domain.identity import Fault, History
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.segment import EPOCH, KeyId, Span
from videostore.gate.bookmark import Bookmark, Reader
from videostore.ports import Ledger
from videostore.signing import SigningKey

_CERTIFICATES = 200_000
"""Certificates held in memory, the newest: eight days of 1,000 cameras. The ledger has them all."""


@dataclass(slots=True)
class Book:
    """What records tell, taken in their order. ``decided`` holds ids of granted requests, ``withdrawn`` those
    of approvals, ``histories`` what befell each login, ``certificates`` (camera, hour) as they came;
    ``approvals`` and ``held`` are ids of each person's approvals and grants, ``ended`` when all of a person's
    approvals were withdrawn, ``deleted`` the hours of each camera."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    decided: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    histories: dict[str, History] = field(default_factory=dict)
    certificates: deque[tuple[str, str]] = field(default_factory=deque)
    deleted: dict[str, dict[str, Stretch]] = field(default_factory=dict)
    idle: dict[str, list[Stretch]] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)
    approvals: dict[str, set[str]] = field(default_factory=dict)
    ended: dict[str, datetime] = field(default_factory=dict)
    stands_since: datetime = EPOCH

    def valid(self, dossier: Dossier | None) -> Dossier | None:
        """Return the dossier with every withdrawal on record, whatever the person's file says; and with
        approvals that are on record only. Whoever withdraws all cannot know which papers were signed and not
        filed, and a site that came out of a backup may have forgotten a withdrawal: what was approved before
        either is none."""
        if dossier is None:
            return None
        recorded = self.approvals.get(dossier.staff.id, set())
        since = max(self.stands_since, self.ended.get(dossier.staff.id, EPOCH))
        approvals = [
            replace(
                paper,
                revoked=paper.revoked or paper.id in self.withdrawn or paper.valid.start < since,
                recorded=paper.id in recorded,
            )
            for paper in dossier.approvals
        ]
        return replace(dossier, approvals=approvals)

    def certificate(self, camera_id: CameraId, key_id: KeyId) -> str:
        """Return the id of the certificate for an hour of a camera; empty if there is none of late."""
        known = self.deleted.get(str(camera_id), {}).get(str(key_id))
        return known.detail if known else ""

    def known_of(self, camera_id: CameraId) -> list[Stretch]:
        """Return what of a camera was deleted, by which certificate, and when it was not recorded."""
        return [*self.deleted.get(str(camera_id), {}).values(), *self.idle.get(str(camera_id), [])]

    def added_at(self, camera_id: CameraId) -> datetime | None:
        """Return when a camera was added."""
        idle = self.idle.get(str(camera_id), [])
        return idle[0].span.end if idle and idle[0].span.start == EPOCH else None

    def grants_of(self, staff_id: str) -> list[Grant]:
        """Return every grant of a person, revoked and expired ones included."""
        return [self.grants[grant_id] for grant_id in self.held.get(staff_id, [])]

    def history(self, login_sha256: str) -> History:
        """Return what the ledger tells of a login."""
        return self.histories.get(login_sha256, History())

    def unreviewed(self) -> list[Grant]:
        """Return the grants taken by breaking the glass that nobody has looked at, oldest first."""
        return [one for one in list(self.grants.values()) if one.request.break_glass and not one.reviewed_by]

    def take(self, record: Record) -> None:
        """Take in what a record tells. Raises KeyError, ValueError or TypeError if it lacks something."""
        body: Mapping[str, Any] = record.body
        match record.event:
            case Event.INCIDENT_OPENED:
                self.incidents[body["incident_id"]] = Incident(
                    body["incident_id"], Purpose(body["purpose"]), body["reference"], record.actor, record.at
                )
            case Event.INCIDENT_CLOSED:
                incident = self.incidents[body["incident_id"]]
                self.incidents[incident.id] = replace(incident, closed_at=record.at)
            case Event.REQUESTED:
                self.requests[body["request_id"]] = _request(record.actor, body)
            case Event.GRANTED:
                second = body["request_id"] in self.decided  # of two who approved at once: it gives nothing
                self.decided.add(body["request_id"])
                holder = self.requests[body["request_id"]].staff_id
                self.held.setdefault(holder, []).append(body["grant_id"])
                self.grants[body["grant_id"]] = Grant(
                    id=body["grant_id"],
                    request=self.requests[body["request_id"]],
                    granted_at=record.at,
                    expires_at=datetime.fromisoformat(body["expires_at"]),
                    second_person=body["second_person"],
                    revoked=second,
                )
            case Event.GRANT_REVOKED:
                grant = self.grants[body["grant_id"]]
                self.grants[grant.id] = replace(grant, revoked=True)
            case Event.REVIEWED:
                grant = self.grants[body["grant_id"]]
                self.grants[grant.id] = replace(grant, reviewed_by=record.actor)
            case Event.SITE_RECONCILED:
                self._end_all(record)
            case Event.CERTIFICATE:
                self._deleted_by(body)
            case Event.CAMERA_ADDED | Event.CAMERA_CHANGED | Event.CAMERA_REMOVED:
                self._switched(record)
            case _:
                self._take_person(record, body)

    def _take_person(self, record: Record, body: Mapping[str, Any]) -> None:
        match record.event:
            case Event.STAFF_APPROVED:
                self.approvals.setdefault(body["staff_id"], set()).add(body["approval_id"])
            case Event.STAFF_RECOVERED:
                self.approvals.setdefault(body["staff_id"], set()).update(body["approval_ids"])
            case Event.STAFF_REVOKED if named := body.get("approval_id"):
                self.withdrawn.add(named)
            case Event.STAFF_REVOKED:
                self.withdrawn |= self.approvals.get(body["staff_id"], set())
                self.ended[body["staff_id"]] = record.at
            case Event.LOGIN if body.get("step") is not None:
                self.histories[body["login_sha256"]] = History(last_step=body["step"])
            case Event.LOGIN_REFUSED if body.get("fault") == Fault.WRONG_CODE:
                former = self.history(body["login_sha256"])
                wrong = former.wrong_codes + 1
                self.histories[body["login_sha256"]] = replace(former, wrong_codes=wrong)
            case _:
                pass

    def _end_all(self, record: Record) -> None:
        """The site came out of a backup. Nobody can say what the records that it lost had ended: all ends."""
        self.stands_since = record.at
        self.withdrawn = self.withdrawn.union(*self.approvals.values())
        for incident in self.incidents.values():
            self.incidents[incident.id] = replace(incident, closed_at=incident.closed_at or record.at)
        for grant in self.grants.values():
            self.grants[grant.id] = replace(grant, revoked=True)

    def _deleted_by(self, body: Mapping[str, Any]) -> None:
        camera_id, key_id = body["camera_id"], body["key_id"]
        span = Span(*(datetime.fromisoformat(moment) for moment in body["span"]))
        hours = self.deleted.setdefault(camera_id, {})
        if key_id not in hours:
            self.certificates.append((camera_id, key_id))
        hours[key_id] = Stretch(span, State.DELETED, body["id"])
        if len(self.certificates) > _CERTIFICATES:
            oldest = self.certificates.popleft()
            del self.deleted[oldest[0]][oldest[1]]

    def _switched(self, record: Record) -> None:
        """Follow when a camera was recorded: not before it was added, nor while it was disabled."""
        idle, change = self.idle.setdefault(str(record.body["camera_id"]), []), record.body.get("change")
        if record.event is Event.CAMERA_ADDED and not idle:
            idle.append(Stretch(Span(EPOCH, record.at), State.NOT_RECORDED))
        elif record.event is Event.CAMERA_REMOVED or change == "disabled":
            idle.append(Stretch(Span(record.at, _FAR), State.NOT_RECORDED))
        elif change == "enabled" and idle and idle[-1].span.end == _FAR and record.at > idle[-1].span.start:
            idle[-1] = replace(idle[-1], span=Span(idle[-1].span.start, record.at))


_FAR = datetime(9999, 1, 1, tzinfo=UTC)


def bookmark(directory: Path, key: SigningKey) -> Bookmark[Book]:
    """Return what keeps the book in ``directory`` between two starts."""
    rules = [access, coverage, identity, sys.modules[__name__]]
    return Bookmark(directory / "casebook.bookmark", Book, key=key, rules=rules)


class Casebook:
    """The book as a ledger has it now. Safe to share between threads."""

    def __init__(self, ledger: Ledger, bookmark: Bookmark[Book] | None = None) -> None:
        self._reader = Reader(ledger, Book(), bookmark)
        self._begun = self._done = 0
        self._lock = Lock()

    def follow(self) -> Book:
        """Take in what was recorded since. Raises LedgerBroken or LedgerUnavailable: the door stays shut.

        Who waited while another reading began, and ended well, has what that one read.
        """
        asked = self._begun
        with self._lock:
            if self._done <= asked:
                self._begun += 1
                self._read()
                self._done = self._begun
            return self._reader.state

    def keep(self) -> None:
        """Keep what was read for the next start."""
        with self._lock:
            self._reader.keep()

    def _read(self) -> None:
        for record in self._reader.new():
            try:
                self._reader.state.take(record)
            except (KeyError, ValueError, TypeError) as error:
                raise LedgerBroken(
                    f"record {record.sequence} does not hold what it should: {error}"
                ) from error


def request_body(request: Request) -> dict[str, Json]:
    """Return what the ledger keeps of a request."""
    return {
        "request_id": request.id,
        "incident_id": request.incident_id,
        "cameras": [str(camera) for camera in sorted(request.cameras)],
        "start": request.span.start.isoformat(),
        "end": request.span.end.isoformat(),
        "mode": request.mode.value,
        "break_glass": request.break_glass,
    }


def _request(staff_id: str, body: Mapping[str, Any]) -> Request:
    return Request(
        id=body["request_id"],
        staff_id=staff_id,
        incident_id=body["incident_id"],
        cameras=frozenset(UUID(camera) for camera in body["cameras"]),
        span=Span(datetime.fromisoformat(body["start"]), datetime.fromisoformat(body["end"])),
        mode=Mode(body["mode"]),
        break_glass=body.get("break_glass", ""),
    )
