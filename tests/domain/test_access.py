"""Paragraph 27 (a) and (b): footage opens only when everything that the law asks for is there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videostore.domain.access import (
    DEPARTMENT,
    AccessPolicy,
    Acknowledgement,
    Approval,
    Dossier,
    Grant,
    Incident,
    Mode,
    Purpose,
    Reason,
    Request,
    Staff,
    decide_request,
    decide_search,
    decide_second_person,
    decide_serving,
    right_to_see,
)
from videostore.domain.refusal import told
from videostore.domain.segment import MICROSECOND, Span

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LATER = Span(NOW + MICROSECOND, NOW + DAY)
NOTICE, OLD_NOTICE = "a" * 64, "b" * 64
CAMERA, OTHER_CAMERA = uuid4(), uuid4()
POLICY = AccessPolicy(NOTICE, max_span=timedelta(hours=4), grant_lifetime=HOUR)


def dossier(name="alice"):
    return Dossier(
        Staff(name, DEPARTMENT),
        approvals=[Approval("1", name, "delegate", Span(NOW - DAY, NOW + DAY), signature_valid=True)],
        acknowledgements=[Acknowledgement(name, NOTICE, signature_valid=True)],
    )


def with_approval(person, **changes):
    return replace(person, approvals=[replace(person.approvals[0], **changes)])


def with_paper(person, **changes):
    return replace(person, acknowledgements=[replace(person.acknowledgements[0], **changes)])


INCIDENT = Incident("i", Purpose.SEARCH, "fire alarm", "alice", NOW - HOUR)
REQUEST = Request("r", "alice", "i", frozenset([CAMERA]), Span(NOW - HOUR, NOW), Mode.VIEW)
GRANT = Grant("g", REQUEST, NOW - MICROSECOND, NOW + HOUR)

IN_THE_PERSON = {
    Reason.STAFF_UNKNOWN: lambda person: None,
    Reason.STAFF_SUSPENDED: lambda person: replace(person, staff=replace(person.staff, suspended=True)),
    Reason.NOT_DSS: lambda person: replace(person, staff=replace(person.staff, department="Finance")),
    Reason.NO_APPROVAL: lambda person: replace(person, approvals=[]),
    Reason.APPROVAL_NOT_YET_VALID: lambda person: with_approval(person, valid=LATER),
    Reason.APPROVAL_EXPIRED: lambda person: with_approval(person, valid=Span(NOW - DAY, NOW)),
    Reason.APPROVAL_REVOKED: lambda person: with_approval(person, revoked=True),
    Reason.APPROVAL_UNSIGNED: lambda person: with_approval(person, signature_valid=False),
    Reason.APPROVED_BY_SELF: lambda person: with_approval(person, approver=person.staff.id),
    Reason.NOTICE_NOT_ACKNOWLEDGED: lambda person: replace(person, acknowledgements=[]),
}
"""What may be wrong with a person, and the code by which it is refused."""

IN_THE_GRANT = {
    Reason.GRANT_UNKNOWN: lambda grant: None,
    Reason.GRANT_NOT_YOURS: lambda grant: replace(grant, request=replace(grant.request, staff_id="bruno")),
    Reason.INCIDENT_UNKNOWN: lambda grant: replace(grant, request=replace(grant.request, incident_id="x")),
    Reason.GRANT_REVOKED: lambda grant: replace(grant, revoked=True),
    Reason.GRANT_EXPIRED: lambda grant: replace(grant, expires_at=NOW),
    Reason.MODE_NOT_GRANTED: lambda grant: replace(grant, request=replace(grant.request, mode=Mode.EXPORT)),
    Reason.CAMERA_NOT_GRANTED: lambda grant: replace(
        grant, request=replace(grant.request, cameras=frozenset([OTHER_CAMERA]))
    ),
    Reason.SPAN_NOT_GRANTED: lambda grant: replace(
        grant, request=replace(grant.request, span=Span(NOW - HOUR + MICROSECOND, NOW))
    ),
}


def serving(grant, person, incident):
    return decide_serving(
        grant,
        dossier=person,
        incident=incident,
        mode=Mode.VIEW,
        camera_id=CAMERA,
        span=REQUEST.span,
        policy=POLICY,
        now=NOW,
    )


def request_decision(request, person, incident):
    return decide_request(request, dossier=person, incident=incident, policy=POLICY, now=NOW)


def test_approved_informed_dss_staff_with_an_open_incident_see_footage():
    assert right_to_see(dossier(), policy=POLICY, now=NOW).allowed
    assert decide_search(dossier=dossier(), incident=INCIDENT, policy=POLICY, now=NOW).allowed
    assert request_decision(REQUEST, dossier(), INCIDENT).allowed
    assert serving(GRANT, dossier(), INCIDENT).allowed


@pytest.mark.parametrize("reason", IN_THE_PERSON)
def test_a_person_who_lacks_one_thing_gets_nothing_by_any_rule(reason):
    person = IN_THE_PERSON[reason](dossier())
    assert right_to_see(person, policy=POLICY, now=NOW).reason is reason
    assert decide_search(dossier=person, incident=INCIDENT, policy=POLICY, now=NOW).reason is reason
    assert request_decision(REQUEST, person, INCIDENT).reason is reason
    assert serving(GRANT, person, INCIDENT).reason is reason


@pytest.mark.parametrize("reason", IN_THE_GRANT)
def test_a_grant_opens_exactly_what_it_names(reason):
    assert serving(IN_THE_GRANT[reason](GRANT), dossier(), INCIDENT).reason is reason


def paper_of_another(person):
    return with_paper(person, staff_id="bruno")


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda person: with_paper(person, notice_sha256=OLD_NOTICE), id="an older notice"),
        pytest.param(lambda person: with_paper(person, signature_valid=False), id="not signed"),
        pytest.param(paper_of_another, id="signed by another"),
    ],
)
def test_only_ones_own_signature_under_the_present_notice_counts(forge):
    decision = right_to_see(forge(dossier()), policy=POLICY, now=NOW)
    assert decision.reason is Reason.NOTICE_NOT_ACKNOWLEDGED


def test_an_approval_of_somebody_else_is_none():
    person = with_approval(dossier(), staff_id="bruno")
    assert right_to_see(person, policy=POLICY, now=NOW).reason is Reason.APPROVAL_UNSIGNED


@given(
    st.sets(st.sampled_from(sorted(IN_THE_PERSON))),
    st.sets(st.sampled_from(sorted(IN_THE_GRANT))),
    st.booleans(),
)
def test_footage_leaves_only_if_nothing_at_all_is_wrong(with_person, with_grant, closed):
    person, grant = dossier(), GRANT
    for reason in with_person - {Reason.STAFF_UNKNOWN}:
        if person.approvals and person.acknowledgements:
            person = IN_THE_PERSON[reason](person)
    for reason in with_grant - {Reason.GRANT_UNKNOWN}:
        grant = IN_THE_GRANT[reason](grant)
    person = None if Reason.STAFF_UNKNOWN in with_person else person
    grant = None if Reason.GRANT_UNKNOWN in with_grant else grant
    incident = replace(INCIDENT, closed_at=NOW) if closed else INCIDENT
    decision = serving(grant, person, incident)
    assert decision.allowed == (not with_person and not with_grant and not closed)
    assert decision.reason in Reason


@given(st.permutations([*IN_THE_PERSON][4:9]))
def test_one_good_approval_is_enough_whatever_others_there_are(reasons):
    good = dossier()
    bad = [IN_THE_PERSON[reason](good).approvals[0] for reason in reasons]
    assert right_to_see(replace(good, approvals=[*bad, *good.approvals]), policy=POLICY, now=NOW).allowed
    assert not right_to_see(replace(good, approvals=bad), policy=POLICY, now=NOW).allowed


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (Reason.NO_CAMERAS, {"cameras": frozenset()}),
        (Reason.SPAN_TOO_LONG, {"span": Span(NOW - 5 * HOUR, NOW)}),
        (Reason.SPAN_IN_FUTURE, {"span": Span(NOW + HOUR, NOW + 2 * HOUR)}),
        (Reason.STAFF_UNKNOWN, {"staff_id": "bruno"}),
        (Reason.INCIDENT_UNKNOWN, {"incident_id": "another"}),
        (Reason.SECOND_PERSON_NEEDED, {"mode": Mode.EXPORT}),
    ],
)
def test_a_request_names_cameras_a_bounded_span_of_the_past_and_its_incident(reason, changes):
    assert request_decision(replace(REQUEST, **changes), dossier(), INCIDENT).reason is reason


@pytest.mark.parametrize(
    ("incident", "reason"),
    [
        pytest.param(None, Reason.INCIDENT_UNKNOWN, id="none"),
        pytest.param(replace(INCIDENT, closed_at=NOW), Reason.INCIDENT_CLOSED, id="closed"),
    ],
)
def test_without_an_open_incident_there_is_no_way(incident, reason):
    assert decide_search(dossier=dossier(), incident=incident, policy=POLICY, now=NOW).reason is reason
    assert request_decision(REQUEST, dossier(), incident).reason is reason
    assert serving(GRANT, dossier(), incident).reason is reason


# --- the second person ---

EXPORT = replace(REQUEST, mode=Mode.EXPORT)


def second_person(request=EXPORT, *, decided=False, requester="alice", second="bruno", incident=INCIDENT):
    return decide_second_person(
        request,
        decided=decided,
        requester=dossier(requester) if requester else None,
        second=dossier(second) if second else None,
        incident=incident,
        policy=POLICY,
        now=NOW,
    ).reason


def test_another_approved_person_approves_an_export():
    assert second_person() is Reason.ALLOWED


@pytest.mark.parametrize(
    ("reason", "case"),
    [
        (Reason.SECOND_PERSON_IS_REQUESTER, {"second": "alice"}),
        (Reason.STAFF_UNKNOWN, {"second": None}),
        (Reason.STAFF_UNKNOWN, {"requester": None}),
        (Reason.REQUEST_UNKNOWN, {"request": None}),
        (Reason.REQUEST_ALREADY_DECIDED, {"decided": True}),
        (Reason.INCIDENT_CLOSED, {"incident": replace(INCIDENT, closed_at=NOW)}),
    ],
)
def test_nobody_else_can(reason, case):
    assert second_person(**case) is reason


@pytest.mark.parametrize("reason", sorted(IN_THE_PERSON))
def test_a_second_person_needs_the_same_right_to_see(reason):
    decision = decide_second_person(
        EXPORT,
        decided=False,
        requester=dossier(),
        second=IN_THE_PERSON[reason](dossier("bruno")),
        incident=INCIDENT,
        policy=POLICY,
        now=NOW,
    )
    assert decision.reason is reason


# --- what is told ---


@pytest.mark.parametrize(
    "reason",
    [
        Reason.STAFF_UNKNOWN,
        Reason.INCIDENT_UNKNOWN,
        Reason.REQUEST_UNKNOWN,
        Reason.GRANT_UNKNOWN,
        Reason.GRANT_NOT_YOURS,
        Reason.CAMERA_NOT_GRANTED,
        Reason.SPAN_NOT_GRANTED,
    ],
)
def test_a_refusal_does_not_tell_what_exists(reason):
    assert told(reason) == "not-granted"


def test_a_person_is_told_what_to_mend():
    assert told(Reason.NOTICE_NOT_ACKNOWLEDGED) == "notice-not-acknowledged"
