"""The gate: the one door through which footage reaches people. Every method asks the rules anew.

Nothing leaves before its record is durable in the ledger; a ledger that cannot be written or does not
verify closes the door.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from videostore import telemetry
from videostore.domain import cmaf
from videostore.domain.access import (
    AccessPolicy,
    Decision,
    Dossier,
    Grant,
    Incident,
    Mode,
    Purpose,
    Reason,
    Request,
    decide_request,
    decide_search,
    decide_second_person,
    decide_serving,
    right_to_see,
    told,
)
from videostore.domain.camera import CameraId
from videostore.domain.errors import (
    AccessRefused,
    CameraStreamInvalid,
    IntegrityError,
    KeyDestroyed,
    NotLoggedIn,
    ObjectMissing,
    RequestInvalid,
)
from videostore.domain.ledger import Event, Json
from videostore.domain.presence import Passage
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import MICROSECOND, Gap, Segment, Span
from videostore.gate.casebook import Casebook, request_body
from videostore.gate.logins import Login, Logins
from videostore.ports import (
    Catalogue,
    Clock,
    Keyring,
    Ledger,
    PresenceRecords,
    SegmentStore,
    StaffDirectory,
)

log = telemetry.logger("gate")

GATE = "gate"
"""Actor of what the gate records of people who are not logged in."""
GAP = timedelta(milliseconds=500)
"""A hole beyond this stays a hole in what is played; less is jitter."""
_LONGEST_REFERENCE = 200
_WHY_REFUSED = (
    "`videostore whoami` shows what is on file about you; docs/reference/codes.md explains the code."
)


@dataclass(slots=True)
class Serving:
    """One viewing or export under a grant: what may leave, and what has left."""

    id: str
    staff_id: str
    grant: Grant
    camera_id: CameraId
    segments: list[Segment]
    served: list[str] = field(default_factory=list)
    frames: int = 0
    size_bytes: int = 0

    @property
    def mode(self) -> Mode:
        return self.grant.request.mode

    def part(self, index: int) -> Span:
        """Return the granted part of a segment's span."""
        part = self.segments[index].span.intersection(self.grant.request.span)
        assert part is not None
        return part


@dataclass(frozen=True, slots=True)
class Piece:
    """One opened segment, cut to the grant. ``start`` is the time of its first frame."""

    init: bytes
    fragments: list[cmaf.Fragment]
    timescale: int
    start: datetime


class Gate:
    """Decides, records, serves. Safe to share between threads. ``staff_id`` is always a logged-in person."""

    def __init__(
        self,
        *,
        staff: StaffDirectory,
        ledger: Ledger,
        store: SegmentStore,
        catalogue: Catalogue,
        keyring: Keyring,
        presence: PresenceRecords,
        clock: Clock,
        logins: Logins,
        policy: Callable[[], AccessPolicy],
        retention: Callable[[], RetentionPolicy],
    ) -> None:
        self._staff = staff
        self._ledger = ledger
        self._casebook = Casebook(ledger)
        self._store = store
        self._catalogue = catalogue
        self._keyring = keyring
        self._presence = presence
        self._clock = clock
        self._logins = logins
        self._policy = policy
        self._retention = retention
        self._servings: dict[str, Serving] = {}

    # --- who is there ---

    def login(self, staff_id: str, password: str, *, address: str) -> tuple[str, Login]:
        """Return a token. It opens nothing by itself. Raises NotLoggedIn."""
        now = self._now()
        self._logins.check_rate(staff_id, address, now=now)
        if not self._staff.verify_password(staff_id, password):
            self._logins.note_failure(staff_id, address, now=now)
            known = self._staff.dossier(staff_id) is not None
            self._ledger.append(
                Event.LOGIN_REFUSED, actor=GATE, body={"staff_id": staff_id if known else "unknown"}
            )
            telemetry.GATE_LOGINS.labels(outcome="refused").inc()
            raise NotLoggedIn("wrong identifier or password", hint="Ask the administrator of the site.")
        token, login = self._logins.begin(staff_id, now=now)
        self._ledger.append(Event.LOGIN, actor=staff_id, body={})
        telemetry.GATE_LOGINS.labels(outcome="accepted").inc()
        return token, login

    def logout(self, token: str) -> None:
        self._logins.end(token)

    def staff_id(self, token: str) -> str:
        """Return who holds this token. Raises NotLoggedIn."""
        return self._logins.staff_id(token, now=self._now())

    def right(self, staff_id: str) -> Decision:
        """Return whether a person may see footage now, or why not."""
        return right_to_see(self._dossier(staff_id), policy=self._policy(), now=self._now())

    def require_right(self, staff_id: str, action: str) -> None:
        """Raise AccessRefused, on record, for a person who may not see footage now."""
        self._check(staff_id, action, self.right(staff_id))

    # --- why ---

    def open_incident(self, staff_id: str, purpose: Purpose, reference: str) -> Incident:
        """Open an incident: the only occasion on which footage may be seen."""
        self.require_right(staff_id, "open-incident")
        reference = reference.strip()
        if not 1 <= len(reference) <= _LONGEST_REFERENCE or not reference.isprintable():
            raise RequestInvalid(
                f"the reference must have 1 to {_LONGEST_REFERENCE} printable characters",
                hint="Name the emergency, such as 'fire alarm, building B, 2026-11-24'.",
            )
        incident_id = secrets.token_hex(8)
        body: dict[str, Json] = {
            "incident_id": incident_id,
            "purpose": purpose.value,
            "reference": reference,
        }
        self._ledger.append(Event.INCIDENT_OPENED, actor=staff_id, body=body)
        return self._book().incidents[incident_id]

    def close_incident(self, staff_id: str, incident_id: str) -> Incident:
        """Close an incident; every viewing under it stops at its next segment."""
        incident = self._book().incidents.get(incident_id)
        decision = decide_search(
            dossier=self._dossier(staff_id), incident=incident, policy=self._policy(), now=self._now()
        )
        self._check(staff_id, "close-incident", decision, incident_id=incident_id)
        self._ledger.append(Event.INCIDENT_CLOSED, actor=staff_id, body={"incident_id": incident_id})
        return self._book().incidents[incident_id]

    def incidents(self, staff_id: str) -> list[Incident]:
        """Return the incidents that are open, newest first."""
        self.require_right(staff_id, "list-incidents")
        found = [incident for incident in self._book().incidents.values() if incident.closed_at is None]
        return sorted(found, key=lambda incident: incident.opened_at, reverse=True)

    # --- what ---

    def search(
        self, staff_id: str, incident_id: str, cameras: Collection[CameraId], span: Span
    ) -> tuple[list[Segment], list[Gap]]:
        """Return which footage and which gaps there are. That alone is information: it needs an incident."""
        decision = decide_search(
            dossier=self._dossier(staff_id),
            incident=self._book().incidents.get(incident_id),
            policy=self._policy(),
            now=self._now(),
        )
        if decision.allowed and span.duration > self._policy().max_span:
            decision = Decision(Reason.SPAN_TOO_LONG)
        self._check(staff_id, "search", decision, incident_id=incident_id)
        segments = self._catalogue.segments(cameras, span)
        gaps = self._catalogue.gaps(cameras, span)
        body: dict[str, Json] = {
            "incident_id": incident_id,
            "cameras": [str(camera) for camera in sorted(cameras)],
            "start": span.start.isoformat(),
            "end": span.end.isoformat(),
            "segments": len(segments),
        }
        self._ledger.append(Event.SEARCHED, actor=staff_id, body=body)
        return segments, gaps

    def request(
        self, staff_id: str, incident_id: str, cameras: Collection[CameraId], span: Span, mode: Mode
    ) -> tuple[Request, Grant | None]:
        """Ask for footage. Returns the request, and the grant unless a second person has to approve it."""
        request = Request(secrets.token_hex(8), staff_id, incident_id, frozenset(cameras), span, mode)
        decision = decide_request(
            request,
            dossier=self._dossier(staff_id),
            incident=self._book().incidents.get(incident_id),
            policy=self._policy(),
            now=self._now(),
        )
        if decision.reason is not Reason.SECOND_PERSON_NEEDED:
            self._check(staff_id, "request", decision, **request_body(request))
        else:
            telemetry.GATE_DECISIONS.labels(reason=decision.reason.value).inc()
        self._ledger.append(Event.REQUESTED, actor=staff_id, body=request_body(request))
        return request, self._grant(request, by=staff_id, second_person="") if decision.allowed else None

    def pending(self, staff_id: str) -> list[Request]:
        """Return the requests that wait for a second person, oldest first."""
        self.require_right(staff_id, "list-requests")
        book = self._book()
        return [
            request
            for request in book.requests.values()
            if request.id not in book.decided
            and (incident := book.incidents.get(request.incident_id)) is not None
            and incident.closed_at is None
        ]

    def approve(self, staff_id: str, request_id: str) -> Grant:
        """Approve somebody else's request."""
        book = self._book()
        request = book.requests.get(request_id)
        decision = decide_second_person(
            request,
            decided=request_id in book.decided,
            requester=self._dossier(request.staff_id) if request else None,
            second=self._dossier(staff_id),
            incident=book.incidents.get(request.incident_id) if request else None,
            policy=self._policy(),
            now=self._now(),
        )
        self._check(staff_id, "approve", decision, request_id=request_id)
        assert request is not None
        return self._grant(request, by=staff_id, second_person=staff_id)

    def grant_of(self, staff_id: str, request_id: str) -> Grant:
        """Return the grant of one's own request, once a second person has approved it."""
        grants = self._book().grants.values()
        grant = next((one for one in grants if one.request.id == request_id), None)
        decision = self.right(staff_id)
        if decision.allowed and (grant is None or grant.request.staff_id != staff_id):
            waits = request_id in self._book().requests and grant is None
            decision = Decision(Reason.SECOND_PERSON_NEEDED if waits else Reason.REQUEST_UNKNOWN)
        self._check(staff_id, "fetch-grant", decision, request_id=request_id)
        assert grant is not None
        return grant

    def revoke_grant(self, staff_id: str, grant_id: str) -> None:
        """End a grant: one's own, or as any approved person somebody else's."""
        decision = self.right(staff_id)
        if decision.allowed and grant_id not in self._book().grants:
            decision = Decision(Reason.GRANT_UNKNOWN)
        self._check(staff_id, "revoke-grant", decision, grant_id=grant_id)
        self._ledger.append(Event.GRANT_REVOKED, actor=staff_id, body={"grant_id": grant_id})

    # --- footage ---

    def begin(self, staff_id: str, grant_id: str, camera_id: CameraId, mode: Mode) -> Serving:
        """Begin a viewing or an export of one camera under a grant, and record it."""
        grant = self._book().grants.get(grant_id)
        span = grant.request.span if grant else Span(self._now(), self._now() + timedelta(seconds=1))
        decision = self._may_leave(staff_id, grant, mode, camera_id, span)
        self._check(staff_id, mode.value, decision, grant_id=grant_id, camera_id=str(camera_id))
        assert grant is not None
        serving = Serving(
            id=secrets.token_hex(16),
            staff_id=staff_id,
            grant=grant,
            camera_id=camera_id,
            segments=self._catalogue.segments([camera_id], span),
        )
        self._record_begin(serving)
        self._forget_ended()
        self._servings[serving.id] = serving
        return serving

    def serving(self, staff_id: str, serving_id: str) -> Serving:
        """Return a viewing or export that this person began. Raises AccessRefused for any other."""
        serving = self._servings.get(serving_id)
        if serving is None or serving.staff_id != staff_id:
            self._check(staff_id, "serve", Decision(Reason.GRANT_UNKNOWN), serving_id=serving_id)
        assert serving is not None
        return serving

    def piece(self, serving: Serving, index: int) -> Piece:
        """Open one segment of a serving, in memory. The rules are asked first.

        Raises AccessRefused, KeyDestroyed or ObjectMissing (retention was there), IntegrityError, SealBroken.
        """
        if not 0 <= index < len(serving.segments):
            raise RequestInvalid(f"there is no part {index}", hint="The playlist names the parts.")
        segment, part = serving.segments[index], serving.part(index)
        grant = self._book().grants.get(serving.grant.id)
        decision = self._may_leave(serving.staff_id, grant, serving.mode, serving.camera_id, part)
        self._check(serving.staff_id, serving.mode.value, decision, grant_id=serving.grant.id)
        sealed = self._store.get(segment.object_key)
        if hashlib.sha256(sealed).hexdigest() != segment.sha256:
            raise IntegrityError(
                f"{segment.object_key} does not hold the bytes that were recorded",
                hint="Tell the operator: `videostore check`.",
            )
        movie = cmaf.parse(self._keyring.open(segment.key_id, sealed))
        kept = [
            fragment
            for fragment in movie.fragments
            if part.contains(_span_of(fragment, segment.span.start, movie.timescale))
        ]
        start = _span_of(kept[0], segment.span.start, movie.timescale).start if kept else part.start
        return Piece(movie.init, kept, movie.timescale, start)

    def movie(self, serving: Serving) -> Iterator[bytes]:
        """Yield one fragmented MP4 of everything granted, a segment at a time; holes stay holes.

        The rules are asked for every segment. What really left is recorded when it ends, however it ends.
        """
        line: _Line | None = None
        try:
            for index, segment in enumerate(serving.segments):
                try:
                    piece = self.piece(serving, index)
                except (KeyDestroyed, ObjectMissing) as error:
                    log.info("segment.gone", object_key=segment.object_key, error=str(error))
                    continue
                if not piece.fragments:
                    continue
                if line is None:
                    line = _Line(piece)
                    yield piece.init
                yield line.follow(piece)
                self._count(serving, index, piece)
        finally:
            self._record_served(serving)

    def media(self, serving: Serving, index: int) -> bytes:
        """Return one part for a player: fragments placed on the time line of the whole serving."""
        piece = self.piece(serving, index)
        offset = int((piece.start - serving.part(0).start).total_seconds() * piece.timescale)
        out = b""
        for number, fragment in enumerate(piece.fragments, start=1):
            out += fragment.moved(start=offset, number=number).data
            offset += fragment.duration
        self._count(serving, index, piece)
        self._record_served(serving, only=index)
        return out

    def delete_by(self, serving: Serving) -> datetime | None:
        """Return when the first of this footage must be gone everywhere, copies included."""
        policy = self._retention()
        return min((policy.deadline(segment.key_id) for segment in serving.segments), default=None)

    # --- entry and exit ---

    def on_premises(self, staff_id: str, incident_id: str, at: datetime) -> list[Passage]:
        """Return who was inside at ``at``, for an open incident."""
        decision = decide_search(
            dossier=self._dossier(staff_id),
            incident=self._book().incidents.get(incident_id),
            policy=self._policy(),
            now=self._now(),
        )
        self._check(staff_id, "presence", decision, incident_id=incident_id)
        inside = self._presence.on_premises(at)
        body: dict[str, Json] = {
            "incident_id": incident_id,
            "at": at.isoformat(),
            "people": len(inside),
        }
        self._ledger.append(Event.PRESENCE_READ, actor=staff_id, body=body)
        return inside

    def _forget_ended(self) -> None:
        now = self._now()
        for serving_id, serving in list(self._servings.items()):
            if now >= serving.grant.expires_at:
                self._servings.pop(serving_id, None)

    # --- the rules ---

    def _now(self) -> datetime:
        """The latest time it may be: a clock in doubt never keeps a right alive."""
        return self._clock.read().latest

    def _book(self) -> Casebook:
        self._casebook.follow()
        return self._casebook

    def _dossier(self, staff_id: str) -> Dossier | None:
        return self._book().valid(self._staff.dossier(staff_id))

    def _may_leave(
        self, staff_id: str, grant: Grant | None, mode: Mode, camera_id: CameraId, span: Span
    ) -> Decision:
        return decide_serving(
            grant,
            dossier=self._dossier(staff_id),
            incident=self._book().incidents.get(grant.request.incident_id) if grant else None,
            mode=mode,
            camera_id=camera_id,
            span=span,
            policy=self._policy(),
            now=self._now(),
        )

    def _check(self, staff_id: str, action: str, decision: Decision, **facts: Json) -> None:
        """Record and raise a refusal."""
        telemetry.GATE_DECISIONS.labels(reason=decision.reason.value).inc()
        if decision.allowed:
            return
        body: Mapping[str, Json] = {"action": action, "reason": decision.reason.value, **facts}
        self._ledger.append(Event.REFUSED, actor=staff_id, body=body)
        raise AccessRefused(told(decision.reason), hint=_WHY_REFUSED)

    def _grant(self, request: Request, *, by: str, second_person: str) -> Grant:
        grant_id = secrets.token_hex(8)
        body: dict[str, Json] = {
            "grant_id": grant_id,
            "request_id": request.id,
            "staff_id": request.staff_id,
            "second_person": second_person,
            "expires_at": (self._now() + self._policy().grant_lifetime).isoformat(),
        }
        self._ledger.append(Event.GRANTED, actor=by, body=body)
        return self._book().grants[grant_id]

    def _record_begin(self, serving: Serving) -> None:
        event, counter = (
            (Event.VIEWING, telemetry.GATE_VIEWINGS)
            if serving.mode is Mode.VIEW
            else (Event.EXPORT, telemetry.GATE_EXPORTS)
        )
        body: dict[str, Json] = {
            "grant_id": serving.grant.id,
            "serving_id": serving.id,
            "camera_id": str(serving.camera_id),
            "segments": len(serving.segments),
        }
        self._ledger.append(event, actor=serving.staff_id, body=body)
        counter.inc()

    def _count(self, serving: Serving, index: int, piece: Piece) -> None:
        serving.served.append(serving.segments[index].sha256)
        serving.frames += sum(fragment.frames for fragment in piece.fragments)
        serving.size_bytes += sum(len(fragment.data) for fragment in piece.fragments)
        telemetry.GATE_SEGMENTS_SERVED.labels(mode=serving.mode.value).inc()

    def _record_served(self, serving: Serving, *, only: int | None = None) -> None:
        hashes = serving.served if only is None else serving.served[-1:]
        digest = hashlib.sha256("".join(f"{line}\n" for line in hashes).encode()).hexdigest()
        body: dict[str, Json] = {
            "grant_id": serving.grant.id,
            "serving_id": serving.id,
            "segments": len(hashes),
            "segments_sha256": digest,
            "frames": serving.frames,
            "part": only,
        }
        self._ledger.append(Event.SERVED, actor=serving.staff_id, body=body)


class _Line:
    """The time line of one movie: pieces back to back, except where footage is missing."""

    def __init__(self, first: Piece) -> None:
        self._init, self._timescale, self._origin = first.init, first.timescale, first.start
        self._end = 0
        self._number = 0

    def follow(self, piece: Piece) -> bytes:
        if piece.init != self._init:
            raise CameraStreamInvalid(
                f"the picture changes its format at {piece.start.isoformat()}",
                hint="Ask for the footage before and after that time separately.",
            )
        at = int((piece.start - self._origin).total_seconds() * self._timescale)
        if at - self._end > GAP.total_seconds() * self._timescale:
            self._end = at
        out = b""
        for fragment in piece.fragments:
            self._number += 1
            out += fragment.moved(start=self._end, number=self._number).data
            self._end += fragment.duration
        return out


def _span_of(fragment: cmaf.Fragment, start: datetime, timescale: int) -> Span:
    """Round down, as the recorder did: the last fragment ends exactly where its segment ends."""
    first, end = (
        start + ticks * 1_000_000 // timescale * MICROSECOND
        for ticks in (fragment.start, fragment.start + max(1, fragment.duration))
    )
    return Span(first, max(end, first + MICROSECOND))
