"""Staff on file: one JSON file a person, which gives no right that a signature does not give.

Whoever can edit these files still cannot let anybody in:

- an approval is signed by an approver of the policy over the person's identifier, department, public
  key and login, so changing any of the four ends it;
- an acknowledgement is signed by the person over the notice and the login, so a login that somebody
  else has set ends it, and the person has to sign again;
- a withdrawn approval stays withdrawn, and one that was never recorded is none: the gate knows both from
  the ledger.

A login is a password, kept as Argon2id (RFC 9106), with a secret for one-time codes, sealed by a key that
lies elsewhere (``gate.authenticator``); or the issuer and subject of OpenID Connect. Signatures are checked
at every ``dossier``.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from videostore import telemetry
from videostore.domain.access import Acknowledgement, Approval, Dossier, Reason, Staff, judge_approval
from videostore.domain.errors import (
    ConfigInvalid,
    KeyUnavailable,
    RequestInvalid,
    SealBroken,
    SignatureInvalid,
    StaffUnknown,
)
from videostore.domain.identity import Identity, Proof
from videostore.domain.segment import Sha256Hex, Span
from videostore.durable import disk_errors, locked, make_directory, replace_secret, write_file
from videostore.gate.authenticator import NO_SECRET, Sealed, new_secret, step_of
from videostore.gate.papers import (
    Paper,
    login_sha256,
    read_acknowledgement,
    read_approval,
    sign_acknowledgement,
    sign_approval,
)
from videostore.ports import MasterKey
from videostore.signing import SigningKey, is_public_key

MIN_PASSWORD = 12
"""Characters. Length is the only rule: see NIST SP 800-63B, section 5.1.1.2."""

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SealBroken)
log = telemetry.logger("gate")
_VERSION = 2
"""Of a person's file. In version 1 approvals did not name the login: whoever has one is added anew."""


class FileStaffDirectory:
    """Port StaffDirectory. ``approvers`` gives the policy's mapping of identifier to public key; ``key`` what
    seals the secrets of authenticators; ``hasher`` what a guess at a password costs, by default as RFC 9106
    recommends."""

    def __init__(
        self,
        directory: Path,
        *,
        approvers: Callable[[], Mapping[str, str]],
        key: Callable[[], MasterKey],
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._directory = directory
        self._approvers = approvers
        self._sealed = Sealed(key)
        self._hasher = hasher or PasswordHasher()

    # --- port ---

    def dossier(self, staff_id: str) -> Dossier | None:
        """Raises ConfigInvalid if the person's file is damaged."""
        opened = self._open(staff_id)
        return opened and opened[1]

    def prove(self, staff_id: str, password: str, code: str, *, now: datetime) -> Proof | None:
        person: Paper | None = None
        with suppress(ConfigInvalid, KeyUnavailable):  # a damaged file lets nobody in, in the same time
            person = self._read(staff_id)
        login = person["login"] if person is not None else {}
        expected, secret = login.get("password"), login.get("totp")
        try:
            self._hasher.verify(expected or self._decoy, _bytes(password))
            right = expected is not None
        except (VerificationError, InvalidHashError):
            right = False
        step = step_of(secret or NO_SECRET, code, now)
        if person is None:
            return None
        return Proof(login_sha256(login), person["suspended"], right, step if secret else None)

    def holder(self, issuer: str, subject: str) -> str | None:
        for staff_id in self._ids():
            with suppress(ConfigInvalid):
                person = self._read(staff_id)
                if person is not None and person["login"] == {"issuer": issuer, "subject": subject}:
                    return staff_id
        return None

    def file_acknowledgement(self, paper: Mapping[str, Any]) -> Acknowledgement:
        """Keep an acknowledgement that the person signed. Raises SignatureInvalid, StaffUnknown."""
        with self._change(str(paper.get("staff_id"))) as person:
            try:
                read = read_acknowledgement(paper, _facts(person))
            except (KeyError, TypeError, ValueError) as error:
                raise SignatureInvalid(f"this is no acknowledgement: {error}") from error
            if not read.signature_valid:
                raise SignatureInvalid(
                    f"this is not the signature of {person['id']} for the login on file",
                    hint="Each person signs with the key on file.",
                )
            papers = [one for one in person["acknowledgements"] if _facts_of(one) != _facts_of(paper)]
            person["acknowledgements"] = [*papers, dict(paper)]
            return read

    # --- what the command line does ---

    def may_be_added(self, staff_id: str, public_key: str) -> None:
        """Raise RequestInvalid or SignatureInvalid if ``add`` would: before somebody types a password."""
        if not _ID.fullmatch(staff_id):
            raise RequestInvalid(
                f"{staff_id!r} is not a staff identifier",
                hint="Use 1 to 63 lower-case letters, digits, '.', '_' or '-'; begin with a letter or digit.",
            )
        _need_public_key(public_key)
        if self._read(staff_id) is not None:
            raise RequestInvalid(f"{staff_id} is on file already", hint="`videostore staff list`")
        self._need_own(public_key, staff_id)

    def add(
        self,
        staff_id: str,
        *,
        department: str,
        public_key: str,
        password: str = "",
        identity: Identity | None = None,
    ) -> str:
        """Give a person an account, which opens nothing yet: with ``password``, or with ``identity`` by
        OpenID Connect. Returns the secret for one-time codes, or "".

        Raises RequestInvalid, SignatureInvalid.
        """
        self.may_be_added(staff_id, public_key)
        login = self._new_login(password, identity)
        with self._locked():
            self.may_be_added(staff_id, public_key)
            self._need_free(identity)
            self._write(
                {
                    "version": _VERSION,
                    "id": staff_id,
                    "department": department,
                    "suspended": False,
                    "public_key": public_key,
                    "login": login,
                    "approvals": [],
                    "acknowledgements": [],
                    "revoked": [],
                }
            )
        return str(login.get("totp", ""))

    def facts(self, staff_id: str) -> dict[str, str]:
        """Return what an approver signs of a person: ``papers.WHAT_IS_APPROVED``. Raises StaffUnknown."""
        return _facts(self._known(staff_id))

    def approve(
        self, staff_id: str, approver: str, key: SigningKey, *, valid: Span, now: datetime
    ) -> Approval:
        """Sign an approval with the approver's ``key`` here. Raises SignatureInvalid for a key that is not
        the approver's, and for one's own approval."""
        return self.file_approval(sign_approval(self.facts(staff_id), approver, key, valid=valid, now=now))

    def file_approval(self, paper: Mapping[str, Any]) -> Approval:
        """Keep an approval that was signed elsewhere. Raises SignatureInvalid, StaffUnknown."""
        with self._change(str(paper.get("staff_id"))) as person:
            try:
                read = self._approval(person, paper, self._approvers())
            except (KeyError, TypeError, ValueError) as error:
                raise SignatureInvalid(f"this is no approval: {error}") from error
            if not read.signature_valid or read.approver == person["id"]:
                raise SignatureInvalid(
                    f"this is no approval of {person['id']} as on file, by an approver {paper['approver']!r}",
                    hint="policies/access.yaml lists the approvers and their public keys.",
                )
            if read.id not in {one["id"] for one in person["approvals"]}:
                person["approvals"].append(dict(paper))
            return read

    def recover(
        self,
        staff_id: str,
        *,
        now: datetime,
        password: str = "",
        identity: Identity | None = None,
        public_key: str = "",
        approver: str = "",
        key: SigningKey | None = None,
    ) -> tuple[str, Sequence[Approval]]:
        """Give a person another login, and another public key if that is lost too. It ends every approval:
        an approver signs again, at once by ``key`` (for as long as that approver had approved) or elsewhere.

        Returns the secret for one-time codes and the new approvals.
        Raises SignatureInvalid, RequestInvalid, StaffUnknown.
        """
        login = self._new_login(password, identity)
        if public_key:
            _need_public_key(public_key)
        with self._change(staff_id) as person:
            if key is not None and self._approvers().get(approver) != key.public:
                raise _not_an_approver(approver)
            held = [self._approval(person, paper, self._approvers()) for paper in person["approvals"]]
            if person["login"] != login:
                self._need_free(identity)
            if public_key:
                self._need_own(public_key, staff_id)
            person["login"] = login
            person["public_key"] = public_key or person["public_key"]
            papers = [
                sign_approval(_facts(person), approver, key, valid=Span(now, one.valid.end), now=now)
                for one in held
                if key is not None
                and one.approver == approver
                and judge_approval(one, Staff(person["id"], person["department"]), now) is Reason.ALLOWED
            ]
            person["approvals"] += papers
            renewed = [self._approval(person, paper, self._approvers()) for paper in papers]
        return str(login.get("totp", "")), renewed

    def acknowledge(
        self, staff_id: str, key: SigningKey, *, notice_sha256: Sha256Hex, now: datetime
    ) -> Acknowledgement:
        """Sign the notice with the person's own ``key`` here. Raises SignatureInvalid for any other key."""
        login = self.facts(staff_id)["login_sha256"]
        return self.file_acknowledgement(
            sign_acknowledgement(staff_id, key, notice_sha256=notice_sha256, login_sha256=login, now=now)
        )

    def revoke(self, staff_id: str, approval_id: str | None = None) -> list[str]:
        """Withdraw one approval, or all. Returns the ids. Raises RequestInvalid if there is no such one."""
        with self._change(staff_id) as person:
            ids = [paper["id"] for paper in person["approvals"] if approval_id in {None, paper["id"]}]
            if approval_id is not None and not ids:
                raise RequestInvalid(
                    f"{staff_id} has no approval {approval_id}", hint="`videostore staff list`"
                )
            person["revoked"] = sorted({*person["revoked"], *ids})
            return ids

    def suspend(self, staff_id: str, *, suspended: bool = True) -> None:
        """Close the account, or open it again."""
        with self._change(staff_id) as person:
            person["suspended"] = suspended

    def seal_secrets(self) -> None:
        """Seal what an older version left in clear. It ends no approval."""
        for staff_id in self._ids():
            path = self._directory / f"{staff_id}.json"
            with suppress(ConfigInvalid), self._locked():  # a damaged file lets nobody in, sealed or not
                if b'"totp":' in path.read_bytes():
                    replace_secret(path, self._bytes_of(self._known(staff_id)))
                    log.info("secret.sealed")

    def list(self) -> Sequence[Dossier]:
        """Return everybody on file, ordered by identifier."""
        return [dossier for name in self._ids() if (dossier := self.dossier(name)) is not None]

    # --- checking ---

    def _checked(self, person: Paper) -> Dossier:
        approvers, facts = self._approvers(), _facts(person)
        return Dossier(
            staff=Staff(person["id"], person["department"], suspended=person["suspended"]),
            approvals=[self._approval(person, paper, approvers) for paper in person["approvals"]],
            acknowledgements=[read_acknowledgement(paper, facts) for paper in person["acknowledgements"]],
            login_sha256=Sha256Hex(facts["login_sha256"]),
        )

    def _approval(self, person: Paper, paper: Mapping[str, Any], approvers: Mapping[str, str]) -> Approval:
        public = approvers.get(str(paper["approver"]))
        return read_approval(paper, _facts(person), public, revoked=paper["id"] in person["revoked"])

    # --- files ---

    @cached_property
    def _decoy(self) -> str:
        return self._hasher.hash(secrets.token_bytes(16))

    def _new_login(self, password: str, identity: Identity | None) -> dict[str, str]:
        if identity is not None:
            return {"issuer": identity.issuer, "subject": identity.subject}
        if len(password) < MIN_PASSWORD:
            raise RequestInvalid(
                f"a password has at least {MIN_PASSWORD} characters",
                hint="Several words are easy to remember.",
            )
        return {"password": self._hasher.hash(_bytes(password)), "totp": new_secret()}

    def _need_own(self, public_key: str, staff_id: str) -> None:
        """Raise RequestInvalid if the key is another's: nobody is the second person for himself."""
        for other in self._ids():
            with suppress(ConfigInvalid):
                person = self._read(other)
                if person is not None and other != staff_id and person["public_key"] == public_key:
                    raise RequestInvalid(
                        f"that is the key of {other}",
                        hint="Each person makes one: `videostore staff key FILE`.",
                    )

    def _need_free(self, identity: Identity | None) -> None:
        """Raise RequestInvalid if the subject logs in as somebody else."""
        holder = self.holder(identity.issuer, identity.subject) if identity else None
        if holder is not None:
            raise RequestInvalid(f"that subject is {holder} already", hint="`videostore staff list`")

    def _ids(self) -> Sequence[str]:
        with disk_errors(self._directory):
            return sorted(path.stem for path in self._directory.glob("*.json"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_directory(self._directory, mode=0o700)
        with locked(self._directory / ".lock"):
            yield

    @contextmanager
    def _change(self, staff_id: str) -> Iterator[Paper]:
        with self._locked():
            person = self._known(staff_id)
            yield person
            self._write(person)

    def _known(self, staff_id: str) -> Paper:
        person = self._read(staff_id)
        if person is None:
            raise StaffUnknown(f"there is nobody {staff_id!r} on file", hint="`videostore staff list`")
        return person

    def _write(self, person: Paper) -> None:
        write_file(self._directory / f"{person['id']}.json", self._bytes_of(person), mode=0o600)

    def _bytes_of(self, person: Paper) -> bytes:
        return json.dumps({**person, "login": self._sealed.close(person["login"])}, indent=1).encode()

    def _read(self, staff_id: str) -> Paper | None:
        opened = self._open(staff_id)
        return opened and opened[0]

    def _open(self, staff_id: str) -> tuple[Paper, Dossier] | None:
        """Return a person's file, and what counts of it now."""
        if not _ID.fullmatch(staff_id):
            return None
        path = self._directory / f"{staff_id}.json"
        try:
            person: Paper = json.loads(path.read_bytes())
            if (
                person["id"] != staff_id
                or person["version"] != _VERSION
                or not isinstance(person["suspended"], bool)
            ):
                raise ValueError("the file is another person's or another version's")
            person["login"] = self._sealed.open(person["login"])
            return person, self._checked(person)
        except FileNotFoundError:
            return None
        except _DAMAGE as error:
            raise ConfigInvalid(
                f"the file of {staff_id} is damaged: {type(error).__name__}",
                hint=f"Restore {path.name} of the staff directory and secrets/login.key from a copy, or add "
                "the person anew.",
            ) from error


def _facts(person: Paper) -> dict[str, str]:
    return {
        "staff_id": person["id"],
        "department": person["department"],
        "public_key": person["public_key"],
        "login_sha256": login_sha256(person["login"]),
    }


def _facts_of(paper: Mapping[str, Any]) -> tuple[object, object]:
    return paper.get("notice_sha256"), paper.get("login_sha256")


def _need_public_key(public_key: str) -> None:
    if not is_public_key(public_key):
        raise SignatureInvalid(
            "that is not a public key", hint="`videostore staff key FILE` prints one: ed25519:…"
        )


def _not_an_approver(approver: str) -> SignatureInvalid:
    return SignatureInvalid(
        f"this is not the key of an approver {approver!r}",
        hint="policies/access.yaml lists the approvers and their public keys.",
    )


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
