"""Port StaffDirectory: what is on file gives no right that a signature does not give."""

from __future__ import annotations

import base64
import json
import string
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher

from videostore.domain.access import AccessPolicy, Reason, right_to_see
from videostore.domain.errors import ConfigInvalid, RequestInvalid, SignatureInvalid, StaffUnknown
from videostore.domain.identity import Identity, code_step
from videostore.domain.segment import Span
from videostore.gate.authenticator import current_code
from videostore.gate.papers import sign_acknowledgement, sign_approval
from videostore.gate.staff import FileStaffDirectory
from videostore.keyring.master import MasterKeyFile
from videostore.signing import SigningKey

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
VALID = Span(NOW - timedelta(days=1), NOW + timedelta(days=1))
NOTICE = "a" * 64
PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
POLICY = AccessPolicy(NOTICE, max_span=timedelta(hours=4), grant_lifetime=timedelta(hours=1))


class People:
    """A staff directory, everybody's keys, and the files as an intruder with a root shell sees them."""

    def __init__(self, root):
        self.root = root
        self.keys = {name: SigningKey.create(root / f"{name}.key") for name in ("delegate", "alice", "bruno")}
        self.approvers = {"delegate": self.keys["delegate"].public}
        self.secrets = {}
        self.login_key = MasterKeyFile(root / "login.key")
        self.login_key.renew()
        self.directory = self.open()

    def open(self):
        return FileStaffDirectory(
            self.root / "staff", approvers=lambda: self.approvers, key=lambda: self.login_key, hasher=CHEAP
        )

    def add(self, name="alice", department="DSS"):
        public = self.keys[name].public
        self.secrets[name] = self.directory.add(
            name, department=department, password=PASSWORD, public_key=public
        )

    def approve(self, name="alice"):
        return self.directory.approve(name, "delegate", self.keys["delegate"], valid=VALID, now=NOW)

    def approval(self, name="alice"):
        """Sign as the delegate would at home."""
        facts, key = self.directory.facts(name), self.keys["delegate"]
        return sign_approval(facts, "delegate", key, valid=VALID, now=NOW)

    def recover(self, key="delegate", password="another good password", **changes):
        how = {"approver": "delegate", "key": self.keys[key] if key else None, "password": password}
        return self.directory.recover("alice", now=NOW, **how, **changes)

    def acknowledge(self, name="alice"):
        self.directory.acknowledge(name, self.keys[name], notice_sha256=NOTICE, now=NOW)

    def admit(self, name="alice"):
        self.add(name)
        self.approve(name)
        self.acknowledge(name)

    def reason(self, name="alice"):
        return right_to_see(self.directory.dossier(name), policy=POLICY, now=NOW).reason

    def prove(self, name="alice", password=PASSWORD, *, code=None, shown_at=NOW):
        code = current_code(self.secrets[name], now=shown_at) if code is None else code
        return self.directory.prove(name, password, code, now=NOW)

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
    assert people.prove().password
    for wrong in ("", PASSWORD + " ", PASSWORD.upper(), "\ud800"):
        assert not people.prove(password=wrong).password
    assert people.directory.prove("nobody", PASSWORD, "", now=NOW) is None
    assert PASSWORD not in json.dumps(people.file())


@pytest.mark.parametrize(("late", "right"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
def test_a_code_is_right_in_its_own_half_minute_and_the_ones_beside_it(people, late, right):
    people.add()
    shown_at = NOW - timedelta(seconds=late)
    assert people.prove(shown_at=shown_at).step == (code_step(shown_at) if right else None)


@pytest.mark.parametrize("code", ["", "000000", "12345", "1234567", "²²²²²²", "١٢٣٤٥٦"])
def test_nothing_else_is_a_code(people, code):
    people.add()
    assert people.prove(code=code).step is None


def test_an_account_of_openid_connect_has_no_password(people):
    who = Identity("https://id.example", "248289761001")
    public = people.keys["alice"].public
    assert people.directory.add("alice", department="DSS", public_key=public, identity=who) == ""
    assert people.directory.holder(who.issuer, who.subject) == "alice"
    assert people.directory.holder("https://other.example", who.subject) is None
    for password in ("", "None", PASSWORD):
        assert not people.prove(password=password, code="").password
    with pytest.raises(RequestInvalid, match="is alice already"):
        people.directory.add("bruno", department="DSS", public_key=people.keys["bruno"].public, identity=who)


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


def test_a_key_has_one_spelling_so_that_nobody_is_two_persons_by_it(people):
    """Base64 of 32 bytes leaves two bits over."""
    own = people.keys["delegate"].public
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    other = own[:-2] + alphabet[alphabet.index(own[-2]) + 1] + "="
    assert base64.b64decode(other.removeprefix("ed25519:")) == base64.b64decode(own.removeprefix("ed25519:"))
    with pytest.raises(SignatureInvalid, match="not a public key"):
        people.directory.add("director", department="DSS", password=PASSWORD, public_key=other)
    people.add()
    people.edit(public_key=other)
    people.approve()
    with pytest.raises(SignatureInvalid):
        people.directory.acknowledge("alice", people.keys["delegate"], notice_sha256=NOTICE, now=NOW)


def test_nobody_is_on_file_twice_by_one_key_and_so_his_own_second_person(people):
    people.admit()
    with pytest.raises(RequestInvalid, match="the key of alice"):
        people.directory.add(
            "alice2", department="DSS", password=PASSWORD, public_key=people.keys["alice"].public
        )
    people.add("bruno")
    with pytest.raises(RequestInvalid, match="the key of bruno"):
        people.recover(public_key=people.keys["bruno"].public)
    assert people.reason() is Reason.ALLOWED
    people.recover(public_key=people.keys["alice"].public)


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
        people.recover()
        assert people.reason() is Reason.NOTICE_NOT_ACKNOWLEDGED
    else:
        people.add("bruno")
        people.edit(login=people.file("bruno")["login"])
        assert people.reason() is Reason.APPROVAL_UNSIGNED
        people.directory.acknowledge("alice", people.keys["alice"], notice_sha256=NOTICE, now=NOW)
        assert people.reason() is Reason.APPROVAL_UNSIGNED, "not even with the person's own signature"


@pytest.mark.parametrize("part", ["password", "totp_sealed"])
def test_no_part_of_a_login_can_be_exchanged(people, part):
    people.admit()
    people.add("bruno")
    login = {**people.file()["login"], part: people.file("bruno")["login"][part]}
    people.edit(login=login)
    assert people.reason() is Reason.APPROVAL_UNSIGNED


def test_who_reads_the_files_of_people_and_no_more_makes_no_code(people):
    people.admit()
    assert people.secrets["alice"] not in (people.root / "staff" / "alice.json").read_text()
    people.login_key = MasterKeyFile(people.root / "another.key")
    people.login_key.renew()
    with pytest.raises(ConfigInvalid, match="damaged"):
        people.open().dossier("alice")
    code = current_code(people.secrets["alice"], now=NOW)
    assert people.open().prove("alice", PASSWORD, code, now=NOW) is None


def test_a_secret_that_lay_in_clear_is_sealed_and_ends_no_approval(people):
    people.admit()
    login = people.file()["login"]
    people.edit(login={"password": login["password"], "totp": people.secrets["alice"]})
    assert people.reason() is Reason.ALLOWED
    people.directory.seal_secrets()
    assert set(people.file()["login"]) == {"password", "totp_sealed"}
    assert people.secrets["alice"] not in (people.root / "staff" / "alice.json").read_text()
    assert people.reason() is Reason.ALLOWED
    assert people.prove().step == code_step(NOW)


def test_an_approver_gives_a_lost_login_back_and_the_person_signs_again(people):
    people.admit()
    former = people.directory.dossier("alice").login_sha256
    with pytest.raises(SignatureInvalid):
        people.recover(key="bruno")
    fresh = SigningKey.create(people.root / "new.key")
    secret, renewed = people.recover(public_key=fresh.public)
    assert [paper.valid.end for paper in renewed] == [VALID.end]
    assert secret != people.secrets["alice"]
    assert not people.prove().password
    assert people.directory.dossier("alice").login_sha256 != former
    people.directory.acknowledge("alice", fresh, notice_sha256=NOTICE, now=NOW)
    assert people.reason() is Reason.ALLOWED


def test_a_recovery_renews_no_approval_that_was_withdrawn(people):
    people.admit()
    people.directory.revoke("alice")
    _, renewed = people.recover()
    assert renewed == []
    assert people.reason() is not Reason.ALLOWED


def test_without_an_approver_a_new_login_ends_every_approval(people):
    people.admit()
    _, renewed = people.recover(key=None)
    assert renewed == []
    people.acknowledge()
    assert people.reason() is Reason.APPROVAL_UNSIGNED
    people.directory.file_approval(people.approval())
    assert people.reason() is Reason.ALLOWED


# --- papers that travel ---


def test_an_approval_signed_elsewhere_is_filed_once(people):
    people.add()
    paper = people.approval()
    people.directory.file_approval(paper)
    people.directory.file_approval(paper)
    assert len(people.file()["approvals"]) == 1
    assert people.reason() is Reason.NOTICE_NOT_ACKNOWLEDGED


@pytest.mark.parametrize("damage", [{}, {"staff_id": "bruno"}, {"valid": []}, {"valid": 3}, {"signature": ""},
                                    {"approver": "x"}, {"id": None}, {"department": ["DSS"]}])  # fmt: skip
def test_a_paper_that_does_not_hold_is_not_filed(people, damage):
    people.add()
    people.add("bruno")
    good = people.approval()
    with pytest.raises((SignatureInvalid, StaffUnknown)):
        people.directory.file_approval({**good, **damage} if damage else {})
    assert people.file()["approvals"] == people.file("bruno")["approvals"] == []


@pytest.mark.parametrize("damage", [{}, {"notice_sha256": "b" * 64}, {"notice_sha256": 1}, {"signature": ""}])
def test_an_acknowledgement_that_does_not_hold_is_not_filed(people, damage):
    people.add()
    login, key = people.directory.facts("alice")["login_sha256"], people.keys["alice"]
    good = sign_acknowledgement("alice", key, notice_sha256=NOTICE, login_sha256=login, now=NOW)
    with pytest.raises((SignatureInvalid, StaffUnknown)):
        people.directory.file_acknowledgement({**good, **damage} if damage else {})
    assert people.file()["acknowledgements"] == []


def test_a_suspended_account_sees_nothing_until_it_is_opened_again(people):
    people.admit()
    people.directory.suspend("alice")
    assert people.reason() is Reason.STAFF_SUSPENDED
    people.directory.suspend("alice", suspended=False)
    assert people.reason() is Reason.ALLOWED


BEYOND = {"id": "x", "staff_id": "alice", "approver": "delegate", "valid": ["0001-01-01T00:00:00+14:00"] * 2}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"version": 1}, id="another version"),
        pytest.param({"id": "bruno"}, id="another person's"),
        pytest.param({"suspended": "no"}, id="text for a truth value"),
        pytest.param({"approvals": [{}]}, id="an empty approval"),
        pytest.param({"approvals": [BEYOND]}, id="an approval beyond the calendar"),
        pytest.param({"acknowledgements": None}, id="no acknowledgements"),
        pytest.param({"login": {}}, id="no login"),
        pytest.param({"login": {"password": "x", "totp": "x"}}, id="no secret"),
        pytest.param({"login": {"password": "", "issuer": "x"}}, id="half a login"),
    ],
)
def test_a_damaged_file_lets_nobody_in_and_says_so(people, damage):
    people.admit()
    people.edit(**damage)
    with pytest.raises(ConfigInvalid, match="damaged"):
        people.directory.dossier("alice")
    assert people.prove() is None


def test_a_file_that_is_too_deep_is_damaged_too(people):
    people.admit()
    (people.root / "staff" / "alice.json").write_text("[" * 100_000)
    with pytest.raises(ConfigInvalid, match="damaged"):
        people.directory.dossier("alice")


def test_an_account_without_a_password_lets_nobody_in(people):
    people.admit()
    people.edit(login={**people.file()["login"], "password": ""})
    for guess in (PASSWORD, "None", ""):
        assert not people.prove(password=guess).password


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
