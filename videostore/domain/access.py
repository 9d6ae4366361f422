"""Who may see footage: paragraph 27 (a) and (b) as pure rules.

Everything fails closed: what is missing, expired, unsigned or unknown is a refusal, and each
refusal has one stable reason code that ledger, metrics and messages share. The rules take one
``now`` and look at nothing but their arguments; they are asked again at every request and for
every segment served, never only at login.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from videostore.domain.camera import CameraId
from videostore.domain.segment import Sha256Hex, Span

DEPARTMENT = "DSS"
"""The Department of Safety and Security: the only staff that paragraph 27 (b) admits."""


class Purpose(StrEnum):
    """The only two purposes of paragraph 27 (a)."""

    EMERGENCY_PREPAREDNESS = "emergency-preparedness"
    SEARCH = "search"


class Mode(StrEnum):
    """What a grant allows."""

    VIEW = "view"
    EXPORT = "export"


class Reason(StrEnum):
    """Every answer the rules can give. Stable codes: documented, counted and written to the ledger."""

    ALLOWED = "allowed"
    SECOND_PERSON_NEEDED = "second-person-needed"
    STAFF_UNKNOWN = "staff-unknown"
    STAFF_SUSPENDED = "staff-suspended"
    NOT_DSS = "not-dss"
    NO_APPROVAL = "no-approval"
    APPROVAL_NOT_YET_VALID = "approval-not-yet-valid"
    APPROVAL_EXPIRED = "approval-expired"
    APPROVAL_REVOKED = "approval-revoked"
    APPROVAL_UNSIGNED = "approval-signature-invalid"
    APPROVAL_NOT_RECORDED = "approval-not-on-record"
    APPROVED_BY_SELF = "approved-by-self"
    NOTICE_NOT_ACKNOWLEDGED = "notice-not-acknowledged"
    INCIDENT_UNKNOWN = "incident-unknown"
    INCIDENT_CLOSED = "incident-closed"
    NO_CAMERAS = "no-cameras"
    SPAN_TOO_LONG = "span-too-long"
    SPAN_IN_FUTURE = "span-in-future"
    BREAK_GLASS_NOT_ALLOWED = "break-glass-not-allowed"
    REQUEST_UNKNOWN = "request-unknown"
    REQUEST_ALREADY_DECIDED = "request-already-decided"
    SECOND_PERSON_IS_REQUESTER = "second-person-is-requester"
    NOTHING_TO_REVIEW = "nothing-to-review"
    GRANT_UNKNOWN = "grant-unknown"
    GRANT_NOT_YOURS = "grant-not-yours"
    GRANT_EXPIRED = "grant-expired"
    GRANT_REVOKED = "grant-revoked"
    MODE_NOT_GRANTED = "mode-not-granted"
    CAMERA_NOT_GRANTED = "camera-not-granted"
    SPAN_NOT_GRANTED = "span-not-granted"


@dataclass(frozen=True, slots=True)
class Staff:
    """A person with an account. ``id`` is the staff identifier, the only personal datum we keep."""

    id: str
    department: str
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Approval:
    """Formal approval by the Under-Secretary-General's delegate, whose key signed it.

    ``recorded`` says whether the ledger tells of it: what was slipped into a file is none.
    """

    id: str
    staff_id: str
    approver: str
    valid: Span
    signature_valid: bool
    revoked: bool = False
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The person's own signature under one version of the notice of paragraph 27."""

    staff_id: str
    notice_sha256: Sha256Hex
    signature_valid: bool


@dataclass(frozen=True, slots=True)
class Dossier:
    """All that is on file about a person, signatures already checked by the staff directory.

    ``login_sha256`` names the login on file: when it changes, every session of the former one ends.
    """

    staff: Staff
    approvals: Sequence[Approval] = ()
    acknowledgements: Sequence[Acknowledgement] = ()
    login_sha256: Sha256Hex | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """An emergency or search: the only occasion on which footage may be opened."""

    id: str
    purpose: Purpose
    reference: str
    opened_by: str
    opened_at: datetime
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks to see, bound to an incident.

    ``break_glass`` says why nobody could be waited for, if the person does not wait for a second one.
    """

    id: str
    staff_id: str
    incident_id: str
    cameras: frozenset[CameraId]
    span: Span
    mode: Mode
    break_glass: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to view or export: who, which cameras, which footage, and until when it may be used.

    ``reviewed_by`` is who looked at it afterwards, if it was taken by breaking the glass.
    """

    id: str
    request: Request
    granted_at: datetime
    expires_at: datetime
    second_person: str = ""
    revoked: bool = False
    reviewed_by: str = ""


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The site's access policy. ``second_person`` names the modes that a second person must approve,
    ``break_glass`` whether an approved person may go on without, and be reviewed."""

    notice_sha256: Sha256Hex
    max_span: timedelta
    grant_lifetime: timedelta
    second_person: frozenset[Mode] = frozenset({Mode.EXPORT})
    break_glass: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome and its reason."""

    reason: Reason

    @property
    def allowed(self) -> bool:
        return self.reason is Reason.ALLOWED


ALLOWED = Decision(Reason.ALLOWED)


def judge_approval(approval: Approval, staff: Staff, now: datetime) -> Reason:
    """Return ALLOWED for an approval that is valid at ``now``, else why it is not."""
    if approval.staff_id != staff.id or not approval.signature_valid:
        return Reason.APPROVAL_UNSIGNED
    if approval.approver == staff.id:
        return Reason.APPROVED_BY_SELF
    if approval.revoked:
        return Reason.APPROVAL_REVOKED
    if not approval.recorded:
        return Reason.APPROVAL_NOT_RECORDED
    if now < approval.valid.start:
        return Reason.APPROVAL_NOT_YET_VALID
    if now >= approval.valid.end:
        return Reason.APPROVAL_EXPIRED
    return Reason.ALLOWED


def right_to_see(dossier: Dossier | None, *, policy: AccessPolicy, now: datetime) -> Decision:
    """Paragraph 27 (b): DSS staff, formally approved, formally informed. All three, at ``now``."""
    if dossier is None:
        return Decision(Reason.STAFF_UNKNOWN)
    if dossier.staff.suspended:
        return Decision(Reason.STAFF_SUSPENDED)
    if dossier.staff.department != DEPARTMENT:
        return Decision(Reason.NOT_DSS)
    verdicts = [judge_approval(approval, dossier.staff, now) for approval in dossier.approvals]
    if Reason.ALLOWED not in verdicts:
        return Decision(min(verdicts, key=_HOW_CLOSE.__getitem__) if verdicts else Reason.NO_APPROVAL)
    if not any(_informed(paper, dossier.staff, policy) for paper in dossier.acknowledgements):
        return Decision(Reason.NOTICE_NOT_ACKNOWLEDGED)
    return ALLOWED


def approved_until(dossier: Dossier | None, *, now: datetime) -> datetime | None:
    """Return when the longest approval that is valid now ends, None if none is: no session is longer."""
    if dossier is None or dossier.staff.suspended:
        return None
    valid = [one for one in dossier.approvals if judge_approval(one, dossier.staff, now) is Reason.ALLOWED]
    return max((one.valid.end for one in valid), default=None)


def decide_request(
    request: Request,
    *,
    dossier: Dossier | None,
    incident: Incident | None,
    policy: AccessPolicy,
    now: datetime,
) -> Decision:
    """Decide a request: ALLOWED, SECOND_PERSON_NEEDED, or the reason of the refusal."""
    basis = _person_and_purpose(dossier, incident, policy=policy, now=now)
    if not basis.allowed:
        return basis
    if dossier is None or request.staff_id != dossier.staff.id:
        return Decision(Reason.STAFF_UNKNOWN)
    if incident is None or request.incident_id != incident.id:
        return Decision(Reason.INCIDENT_UNKNOWN)
    if not request.cameras:
        return Decision(Reason.NO_CAMERAS)
    if request.span.duration > policy.max_span:
        return Decision(Reason.SPAN_TOO_LONG)
    if request.span.start > now:
        return Decision(Reason.SPAN_IN_FUTURE)
    if request.break_glass and not policy.break_glass:
        return Decision(Reason.BREAK_GLASS_NOT_ALLOWED)
    if request.mode in policy.second_person and not request.break_glass:
        return Decision(Reason.SECOND_PERSON_NEEDED)
    return ALLOWED


def decide_second_person(
    request: Request | None,
    *,
    decided: bool,
    requester: Dossier | None,
    second: Dossier | None,
    incident: Incident | None,
    policy: AccessPolicy,
    now: datetime,
) -> Decision:
    """Decide whether ``second`` may approve ``request``: a different person with the same right to see."""
    right = right_to_see(second, policy=policy, now=now)
    if not right.allowed:
        return right
    if request is None:
        return Decision(Reason.REQUEST_UNKNOWN)
    if second is None or request.staff_id == second.staff.id:
        return Decision(Reason.SECOND_PERSON_IS_REQUESTER)
    if decided:
        return Decision(Reason.REQUEST_ALREADY_DECIDED)
    again = decide_request(request, dossier=requester, incident=incident, policy=policy, now=now)
    return ALLOWED if again.reason is Reason.SECOND_PERSON_NEEDED else again


def decide_review(
    grant: Grant | None, *, reviewer: Dossier | None, policy: AccessPolicy, now: datetime
) -> Decision:
    """Decide whether ``reviewer`` may close the review of a glass that was broken: not who broke it."""
    right = right_to_see(reviewer, policy=policy, now=now)
    if not right.allowed:
        return right
    if grant is None or not grant.request.break_glass or grant.reviewed_by:
        return Decision(Reason.NOTHING_TO_REVIEW)
    if reviewer is None or grant.request.staff_id == reviewer.staff.id:
        return Decision(Reason.SECOND_PERSON_IS_REQUESTER)
    return ALLOWED


def decide_serving(
    grant: Grant | None,
    *,
    dossier: Dossier | None,
    incident: Incident | None,
    mode: Mode,
    camera_id: CameraId,
    span: Span,
    policy: AccessPolicy,
    now: datetime,
) -> Decision:
    """Decide whether the footage of ``camera_id`` in ``span`` may leave, now, under ``grant``.

    Asked for every segment: a closed incident, a withdrawn approval or a revoked grant
    stops a viewing at the next segment. ``span`` is the part that is served, already cut
    to the granted span.
    """
    right = right_to_see(dossier, policy=policy, now=now)
    if not right.allowed:
        return right
    if grant is None:
        return Decision(Reason.GRANT_UNKNOWN)
    if dossier is None or grant.request.staff_id != dossier.staff.id:
        return Decision(Reason.GRANT_NOT_YOURS)
    if incident is None or incident.id != grant.request.incident_id:
        return Decision(Reason.INCIDENT_UNKNOWN)
    if incident.closed_at is not None:
        return Decision(Reason.INCIDENT_CLOSED)
    return _grant_verdict(grant, mode=mode, camera_id=camera_id, span=span, now=now)


def decide_search(
    *, dossier: Dossier | None, incident: Incident | None, policy: AccessPolicy, now: datetime
) -> Decision:
    """Decide whether a person may learn what footage exists: the same right, and an open incident."""
    return _person_and_purpose(dossier, incident, policy=policy, now=now)


def _person_and_purpose(
    dossier: Dossier | None, incident: Incident | None, *, policy: AccessPolicy, now: datetime
) -> Decision:
    right = right_to_see(dossier, policy=policy, now=now)
    if not right.allowed:
        return right
    if incident is None:
        return Decision(Reason.INCIDENT_UNKNOWN)
    if incident.closed_at is not None:
        return Decision(Reason.INCIDENT_CLOSED)
    return ALLOWED


def _grant_verdict(grant: Grant, *, mode: Mode, camera_id: CameraId, span: Span, now: datetime) -> Decision:
    if grant.revoked:
        return Decision(Reason.GRANT_REVOKED)
    if now >= grant.expires_at:
        return Decision(Reason.GRANT_EXPIRED)
    if grant.request.mode is not mode:
        return Decision(Reason.MODE_NOT_GRANTED)
    if camera_id not in grant.request.cameras:
        return Decision(Reason.CAMERA_NOT_GRANTED)
    if not grant.request.span.contains(span):
        return Decision(Reason.SPAN_NOT_GRANTED)
    return ALLOWED


_HOW_CLOSE = MappingProxyType(
    {
        reason: rank
        for rank, reason in enumerate(
            (
                Reason.APPROVAL_REVOKED,
                Reason.APPROVAL_EXPIRED,
                Reason.APPROVAL_NOT_YET_VALID,
                Reason.APPROVAL_NOT_RECORDED,
                Reason.APPROVED_BY_SELF,
                Reason.APPROVAL_UNSIGNED,
            )
        )
    }
)
"""Of several approvals that all fail, the reason named is the one that says most."""


def _informed(paper: Acknowledgement, staff: Staff, policy: AccessPolicy) -> bool:
    return (
        paper.staff_id == staff.id and paper.signature_valid and paper.notice_sha256 == policy.notice_sha256
    )
