"""Staff on file: one JSON file a person, which gives no right that a signature does not give.

Whoever can edit these files still cannot let anybody in:

- an approval is signed by an approver of the policy over the person's identifier, department and
  public key, so changing any of the three ends it;
- an acknowledgement is signed by the person over the notice and over the login, so a password that
  somebody else has set ends it, and the person has to sign again;
- a withdrawn approval stays withdrawn: the gate takes withdrawals from the ledger as well.

Passwords are kept as Argon2id (RFC 9106). Signatures are checked at every ``dossier``.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from videostore.domain.access import Acknowledgement, Approval, Dossier, Staff
from videostore.domain.errors import ConfigInvalid, RequestInvalid, SignatureInvalid, StaffUnknown
from videostore.domain.ledger import Json
from videostore.domain.segment import Sha256Hex, Span
from videostore.durable import disk_errors, locked, make_directory, write_file
from videostore.signing import SigningKey, is_public_key, verify

APPROVAL_CONTEXT = "approval"
ACKNOWLEDGEMENT_CONTEXT = "acknowledgement"
MIN_PASSWORD = 12
"""Characters. Length is the only rule: see NIST SP 800-63B, section 5.1.1.2."""

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HASHINGS_AT_ONCE = 4  # each takes 64 MiB


class FileStaffDirectory:
    """Port StaffDirectory. ``approvers`` gives the policy's mapping of identifier to public key."""

    def __init__(self, directory: Path, *, approvers: Callable[[], Mapping[str, str]]) -> None:
        self._directory = directory
        self._approvers = approvers
        self._hasher = PasswordHasher()
        self._hashing = BoundedSemaphore(_HASHINGS_AT_ONCE)

    # --- port ---

    def dossier(self, staff_id: str) -> Dossier | None:
        """Raises ConfigInvalid if the person's file is damaged."""
        person = self._read(staff_id)
        return None if person is None else self._checked(person)

    def verify_password(self, staff_id: str, password: str) -> bool:
        person: _Person | None = None
        with suppress(ConfigInvalid):  # a damaged file lets nobody in, in the same time
            person = self._read(staff_id)
        expected = self._decoy if person is None else str(person["password"])
        with self._hashing:
            try:
                self._hasher.verify(expected, _bytes(password))
            except (VerificationError, InvalidHashError):
                return False
        return person is not None

    # --- what the command line does ---

    def add(self, staff_id: str, *, department: str, password: str, public_key: str) -> None:
        """Give a person an account, which opens nothing yet. Raises RequestInvalid, SignatureInvalid."""
        if not _ID.fullmatch(staff_id):
            raise RequestInvalid(
                f"{staff_id!r} is not a staff identifier",
                hint="Use 1 to 63 lower-case letters, digits, '.', '_' or '-'; begin with a letter or digit.",
            )
        if not is_public_key(public_key):
            raise SignatureInvalid(
                "that is not a public key", hint="`videostore staff key FILE` prints one: ed25519:…"
            )
        hashed = self._hash(password)
        with self._locked():
            if self._read(staff_id) is not None:
                raise RequestInvalid(f"{staff_id} is on file already", hint="`videostore staff list`")
            self._write(
                {
                    "version": 1,
                    "id": staff_id,
                    "department": department,
                    "suspended": False,
                    "public_key": public_key,
                    "password": hashed,
                    "approvals": [],
                    "acknowledgements": [],
                    "revoked": [],
                }
            )

    def set_password(self, staff_id: str, password: str) -> None:
        """Change the password. It ends the person's acknowledgements: they vouch for the login."""
        hashed = self._hash(password)
        with self._change(staff_id) as person:
            person["password"] = hashed

    def approve(
        self, staff_id: str, approver: str, key: SigningKey, *, valid: Span, now: datetime
    ) -> Approval:
        """Sign an approval with the approver's ``key``. Raises SignatureInvalid for a key that is not
        the approver's, and for one's own approval."""
        with self._change(staff_id) as person:
            if self._approvers().get(approver) != key.public:
                raise SignatureInvalid(
                    f"this is not the key of an approver {approver!r}",
                    hint="policies/access.yaml lists the approvers and their public keys.",
                )
            if _is_self(person, approver, key.public):
                raise SignatureInvalid("nobody approves himself", hint="Ask another approver.")
            document: dict[str, Json] = {
                "id": secrets.token_hex(16),
                "staff_id": staff_id,
                "department": person["department"],
                "public_key": person["public_key"],
                "approver": approver,
                "valid": [valid.start.isoformat(), valid.end.isoformat()],
                "issued_at": now.isoformat(),
            }
            signature = key.sign(document, context=APPROVAL_CONTEXT)
            person["approvals"].append({**document, "signature": signature})
            return self._approval(person, person["approvals"][-1], self._approvers())

    def acknowledge(
        self, staff_id: str, key: SigningKey, *, notice_sha256: Sha256Hex, now: datetime
    ) -> Acknowledgement:
        """Sign the notice with the person's own ``key``. Raises SignatureInvalid for any other key."""
        with self._change(staff_id) as person:
            if key.public != person["public_key"]:
                raise SignatureInvalid(
                    f"this is not the key of {staff_id}", hint="Each person signs with the key on file."
                )
            document: dict[str, Json] = {
                "staff_id": staff_id,
                "notice_sha256": notice_sha256,
                "login_sha256": _login(person),
                "at": now.isoformat(),
            }
            signature = key.sign(document, context=ACKNOWLEDGEMENT_CONTEXT)
            person["acknowledgements"].append({**document, "signature": signature})
            return _acknowledgement(person, person["acknowledgements"][-1])

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

    def list(self) -> Sequence[Dossier]:
        """Return everybody on file, ordered by identifier."""
        with disk_errors(self._directory):
            names = sorted(path.stem for path in self._directory.glob("*.json"))
        return [dossier for name in names if (dossier := self.dossier(name)) is not None]

    # --- checking ---

    def _checked(self, person: _Person) -> Dossier:
        approvers = self._approvers()
        return Dossier(
            staff=Staff(person["id"], person["department"], suspended=person["suspended"]),
            approvals=[self._approval(person, paper, approvers) for paper in person["approvals"]],
            acknowledgements=[_acknowledgement(person, paper) for paper in person["acknowledgements"]],
        )

    def _approval(self, person: _Person, paper: _Person, approvers: Mapping[str, str]) -> Approval:
        approver, public = str(paper["approver"]), approvers.get(str(paper["approver"]))
        return Approval(
            id=paper["id"],
            staff_id=paper["staff_id"],
            # Self-approval has one mark in the rules: the approver's identifier is the person's.
            approver=person["id"] if _is_self(person, approver, public) else approver,
            valid=Span(*(datetime.fromisoformat(at).astimezone(UTC) for at in paper["valid"])),
            signature_valid=public is not None
            and all(paper[field] == person[field] for field in ("department", "public_key"))
            and _signed(paper, public, APPROVAL_CONTEXT),
            revoked=paper["id"] in person["revoked"],
        )

    # --- files ---

    @cached_property
    def _decoy(self) -> str:
        return self._hasher.hash(secrets.token_bytes(16))

    def _hash(self, password: str) -> str:
        if len(password) < MIN_PASSWORD:
            raise RequestInvalid(
                f"a password has at least {MIN_PASSWORD} characters",
                hint="Several words are easy to remember.",
            )
        return self._hasher.hash(_bytes(password))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_directory(self._directory, mode=0o700)
        with locked(self._directory / ".lock"):
            yield

    @contextmanager
    def _change(self, staff_id: str) -> Iterator[_Person]:
        with self._locked():
            person = self._read(staff_id)
            if person is None:
                raise StaffUnknown(f"there is nobody {staff_id!r} on file", hint="`videostore staff list`")
            yield person
            self._write(person)

    def _write(self, person: _Person) -> None:
        data = json.dumps(person, indent=1).encode()
        write_file(self._directory / f"{person['id']}.json", data, mode=0o600)

    def _read(self, staff_id: str) -> _Person | None:
        if not _ID.fullmatch(staff_id):
            return None
        path = self._directory / f"{staff_id}.json"
        try:
            person: _Person = json.loads(path.read_bytes())
            if (
                person["id"] != staff_id
                or person["version"] != 1
                or not isinstance(person["suspended"], bool)
            ):
                raise ValueError("the file is another person's or another version's")  # noqa: TRY301
            self._checked(person)
            str(person["password"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigInvalid(
                f"the file of {staff_id} is damaged: {type(error).__name__}",
                hint=f"Restore {path.name} of the staff directory from a copy, or add the person anew.",
            ) from error
        return person


_Person = dict[str, Any]


def _acknowledgement(person: _Person, paper: _Person) -> Acknowledgement:
    return Acknowledgement(
        staff_id=paper["staff_id"],
        notice_sha256=paper["notice_sha256"],
        signature_valid=paper["login_sha256"] == _login(person)
        and _signed(paper, person["public_key"], ACKNOWLEDGEMENT_CONTEXT),
    )


def _signed(paper: _Person, public: str, context: str) -> bool:
    document = {name: value for name, value in paper.items() if name != "signature"}
    return verify(document, paper["signature"], public=public, context=context)


def _is_self(person: _Person, approver: str, public: str | None) -> bool:
    return bool(approver.casefold() == person["id"] or public == person["public_key"])


def _login(person: _Person) -> str:
    """Name the login that an acknowledgement vouches for: the hash of the stored (salted) password hash."""
    return hashlib.sha256(str(person["password"]).encode()).hexdigest()


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
