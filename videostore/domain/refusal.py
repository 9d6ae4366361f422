"""What a refused person is told: enough to mend what is theirs, nothing of what exists."""

from __future__ import annotations

from videostore.domain.access import Reason

_ABOUT_THE_PERSON = frozenset(
    {
        Reason.STAFF_SUSPENDED,
        Reason.NOT_DSS,
        Reason.NO_APPROVAL,
        Reason.APPROVAL_NOT_YET_VALID,
        Reason.APPROVAL_EXPIRED,
        Reason.APPROVAL_REVOKED,
        Reason.APPROVAL_UNSIGNED,
        Reason.APPROVAL_NOT_RECORDED,
        Reason.APPROVED_BY_SELF,
        Reason.NOTICE_NOT_ACKNOWLEDGED,
        Reason.INCIDENT_CLOSED,
        Reason.NO_CAMERAS,
        Reason.SPAN_TOO_LONG,
        Reason.SPAN_IN_FUTURE,
        Reason.SECOND_PERSON_NEEDED,
        Reason.SECOND_PERSON_IS_REQUESTER,
        Reason.BREAK_GLASS_NOT_ALLOWED,
        Reason.GRANT_EXPIRED,
        Reason.GRANT_REVOKED,
    }
)


def told(reason: Reason) -> str:
    """Return what the refused person is told.

    Reasons that lie with the person or in what the person typed are told, so that an officer in
    a hurry knows what to mend. All others would reveal what exists and become ``not-granted``;
    the ledger has the real one.
    """
    return reason.value if reason in _ABOUT_THE_PERSON else "not-granted"
