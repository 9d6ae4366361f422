"""Port StaffDirectory: what is on file gives no right that a signature does not give."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from videostore.domain.access import AccessPolicy, Reason, right_to_see
from videostore.domain.errors import ConfigInvalid, RequestInvalid, SignatureInvalid, StaffUnknown
from videostore.domain.segment import Span
from videostore.gate.staff import FileStaffDirectory
from videostore.signing import SigningKey

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
VALID = Span(NOW - timedelta(days=1), NOW + timedelta(days=1))
NOTICE = "a" * 64
PASSWORD = "correct horse battery"
POLICY = AccessPolicy(NOTICE, max_span=timedelta(hours=4), grant_lifetime=timedelta(hours=1))


class People:
    """A staff directory, everybody's keys, and the files as an intruder with a root shell sees them."""

    def __init__(self, root):
        self.root = root
        self.keys = {name: SigningKey.create(root / f"{name}.key") for name in ("delegate", "alice", "bruno")}
        self.approvers = {"delegate": self.keys["delegate"].public}
        self.directory = FileStaffDirectory(root / "staff", approvers=lambda: self.approvers)

    def add(self, name="alice", department="DSS"):
        public = self.keys[name].public
        self.directory.add(name, department=department, password=PASSWORD, public_key=public)

    def approve(self, name="alice"):
        return self.directory.approve(name, "delegate", self.keys["delegate"], valid=VALID, now=NOW)

    def acknowledge(self, name="alice"):
        self.directory.acknowledge(name, self.keys[name], notice_sha256=NOTICE, now=NOW)

    def admit(self, name="alice"):
        self.add(name)
        self.approve(name)
        self.acknowledge(name)

    def reason(self, name="alice"):
        return right_to_see(self.directory.dossier(name), policy=POLICY, now=NOW).reason

    def edit(self, name="alice", **changes):
        path = self.root / "staff" / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def file(self, name="alice"):
        return json.loads((self.root / "staff" / f"{name}.json").read_text())


@pytest.fixture
def people(tmp_path):
    return People(tmp_path)


def test_a_person_added_approved_and_informed_may_see_footage(people):
    people.add()
    assert people.reason() is Reason.NO_APPROVAL
    people.approve()
    assert people.reason() is Reason.NOTICE_NOT_ACKNOWLEDGED
    people.acknowledge()
    assert people.reason() is Reason.ALLOWED


def test_nobody_is_on_file_unless_added(people):
    assert people.directory.dossier("alice") is None
    assert people.directory.list() == []
    for name in ("../alice", "", ".", "Alice", "a" * 64, "alice\n"):
        assert people.directory.dossier(name) is None


def test_only_the_right_password_is_right(people):
    people.add()
    assert people.directory.verify_password("alice", PASSWORD)
    for wrong in ("", PASSWORD + " ", PASSWORD.upper(), "\ud800"):
        assert not people.directory.verify_password("alice", wrong)
    assert not people.directory.verify_password("nobody", PASSWORD)
    assert PASSWORD not in json.dumps(people.file())


def test_an_approval_ends_when_the_department_it_was_given_for_is_changed(people):
    people.add(department="Finance")
    people.approve()
    assert people.reason() is Reason.NOT_DSS
    people.edit(department="DSS")
    assert people.reason() is Reason.APPROVAL_UNSIGNED


def test_an_approval_ends_when_the_key_it_was_given_for_is_changed(people):
    people.admit()
    people.edit(public_key=people.keys["bruno"].public)
    assert people.reason() is Reason.APPROVAL_UNSIGNED


@pytest.mark.parametrize(
    "field", ["staff_id", "department", "public_key", "approver", "valid", "id", "issued_at"]
)
def test_no_field_of_an_approval_can_be_altered(people, field):
    people.admit()
    (paper,) = people.file()["approvals"]
    longer = [paper["valid"][0], "2099-01-01T00:00:00+00:00"]
    people.edit(approvals=[{**paper, field: longer if field == "valid" else "bruno"}])
    assert people.reason() is Reason.APPROVAL_UNSIGNED


def test_papers_of_one_person_do_not_serve_another(people):
    people.admit()
    people.add("bruno")
    people.edit("bruno", **{name: people.file()[name] for name in ("approvals", "acknowledgements")})
    assert people.reason("bruno") is Reason.APPROVAL_UNSIGNED


def test_an_approver_who_is_struck_from_the_policy_approves_nobody_any_more(people):
    people.admit()
    del people.approvers["delegate"]
    assert people.reason() is Reason.APPROVAL_UNSIGNED


def test_an_approver_with_another_key_did_not_sign_this(people):
    people.admit()
    people.approvers["delegate"] = people.keys["bruno"].public
    assert people.reason() is Reason.APPROVAL_UNSIGNED


def test_nobody_approves_himself_under_any_name(people):
    people.approvers["director"] = people.keys["alice"].public
    people.add()
    with pytest.raises(SignatureInvalid, match="nobody approves himself"):
        people.directory.approve("alice", "director", people.keys["alice"], valid=VALID, now=NOW)
    people.approve()
    people.acknowledge()
    people.approvers["delegate"] = people.keys["alice"].public  # the delegate's key becomes alice's
    assert people.reason() is not Reason.ALLOWED


def test_only_an_approver_of_the_policy_approves(people):
    people.add()
    for approver, key in (("delegate", "bruno"), ("nobody", "delegate")):
        with pytest.raises(SignatureInvalid):
            people.directory.approve("alice", approver, people.keys[key], valid=VALID, now=NOW)
    assert people.reason() is Reason.NO_APPROVAL


def test_a_withdrawn_approval_is_void(people):
    people.admit()
    assert people.directory.revoke("alice")
    assert people.reason() is Reason.APPROVAL_REVOKED
    people.approve()
    assert people.reason() is Reason.ALLOWED


def test_only_the_person_acknowledges_the_notice(people):
    people.add()
    people.approve()
    with pytest.raises(SignatureInvalid):
        people.directory.acknowledge("alice", people.keys["bruno"], notice_sha256=NOTICE, now=NOW)
    assert people.reason() is Reason.NOTICE_NOT_ACKNOWLEDGED


@pytest.mark.parametrize("who", ["administrator", "intruder"])
def test_a_password_set_by_somebody_else_ends_the_acknowledgement(people, who):
    people.admit()
    if who == "administrator":
        people.directory.set_password("alice", "another good password")
    else:
        people.add("bruno")
        people.edit(password=people.file("bruno")["password"])
    assert people.reason() is Reason.NOTICE_NOT_ACKNOWLEDGED


def test_a_suspended_account_sees_nothing_until_it_is_opened_again(people):
    people.admit()
    people.directory.suspend("alice")
    assert people.reason() is Reason.STAFF_SUSPENDED
    people.directory.suspend("alice", suspended=False)
    assert people.reason() is Reason.ALLOWED


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"version": 2}, id="another version"),
        pytest.param({"id": "bruno"}, id="another person's"),
        pytest.param({"suspended": "no"}, id="text for a truth value"),
        pytest.param({"approvals": [{}]}, id="an empty approval"),
        pytest.param({"acknowledgements": None}, id="no acknowledgements"),
    ],
)
def test_a_damaged_file_lets_nobody_in_and_says_so(people, damage):
    people.admit()
    people.edit(**damage)
    with pytest.raises(ConfigInvalid, match="damaged"):
        people.directory.dossier("alice")
    assert not people.directory.verify_password("alice", PASSWORD)


def test_an_account_without_a_password_lets_nobody_in(people):
    people.admit()
    people.edit(password=None)
    for guess in (PASSWORD, "None", ""):
        assert not people.directory.verify_password("alice", guess)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (RequestInvalid, {"staff_id": "../alice"}),
        (RequestInvalid, {"staff_id": "Alice"}),
        (RequestInvalid, {"password": "short"}),
        (SignatureInvalid, {"public_key": "ed25519:nonsense"}),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing_behind(people, kind, changes):
    good = {"staff_id": "alice", "password": PASSWORD, "public_key": people.keys["alice"].public}
    fields = {**good, **changes}
    with pytest.raises(kind):
        people.directory.add(fields.pop("staff_id"), department="DSS", **fields)
    assert people.directory.list() == []


def test_nobody_is_added_twice_and_nobody_unknown_is_changed(people):
    people.admit()
    with pytest.raises(RequestInvalid):
        people.add()
    assert people.reason() is Reason.ALLOWED
    for change in (people.directory.revoke, people.directory.suspend):
        with pytest.raises(StaffUnknown):
            change("nobody")
    with pytest.raises(RequestInvalid):
        people.directory.revoke("alice", "no such approval")


def test_files_about_people_are_for_their_owner_only(people):
    people.admit()
    path = people.root / "staff" / "alice.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
