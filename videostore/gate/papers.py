"""The papers of a person: what an approver and the person sign, and how anybody checks it, offline.

A paper is a JSON object with its ``signature`` (``videostore.signing``). An **approval** is signed by a
delegate of the Under-Secretary-General over the person's identifier, department, public key and login;
an **acknowledgement** by the person over the notice and the login. Neither needs the site: the keys stay
with their owners, and only papers travel.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from videostore.domain.access import Acknowledgement, Approval
from videostore.domain.errors import SignatureInvalid
from videostore.domain.ledger import Json, canonical
from videostore.domain.segment import Sha256Hex, Span
from videostore.signing import SigningKey, verify_canonical

Paper = dict[str, Any]

APPROVAL_CONTEXT = "approval"
ACKNOWLEDGEMENT_CONTEXT = "acknowledgement"
WHAT_IS_APPROVED = ("staff_id", "department", "public_key", "login_sha256")
"""Changing any of these on file ends an approval."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def sign_approval(
    person: Mapping[str, Any], approver: str, key: SigningKey, *, valid: Span, now: datetime
) -> Paper:
    """Return an approval of what ``person`` says of herself (``WHAT_IS_APPROVED``). Raises SignatureInvalid
    for one's own."""
    if is_self(person, approver, key.public):
        raise SignatureInvalid("nobody approves himself", hint="Ask another approver.")
    document: dict[str, Json] = {
        "id": secrets.token_hex(16),
        **{field: str(person[field]) for field in WHAT_IS_APPROVED},
        "approver": approver,
        "valid": [valid.start.isoformat(), valid.end.isoformat()],
        "issued_at": now.isoformat(),
    }
    return {**document, "signature": key.sign(document, context=APPROVAL_CONTEXT)}


def sign_acknowledgement(
    staff_id: str, key: SigningKey, *, notice_sha256: str, login_sha256: str, now: datetime
) -> Paper:
    """Return the person's acknowledgement of a notice."""
    document: dict[str, Json] = {
        "staff_id": staff_id,
        "notice_sha256": notice_sha256,
        "login_sha256": login_sha256,
        "at": now.isoformat(),
    }
    return {**document, "signature": key.sign(document, context=ACKNOWLEDGEMENT_CONTEXT)}


def read_approval(
    paper: Mapping[str, Any], person: Mapping[str, Any], public: str | None, *, revoked: bool = False
) -> Approval:
    """Return an approval as the rules see it, for the ``person`` on file and the approver's key now.

    Raises KeyError, TypeError or ValueError if it is no approval.
    """
    approver = str(paper["approver"])
    return Approval(
        id=str(paper["id"]),
        staff_id=str(paper["staff_id"]),
        # Self-approval has one mark in the rules: the approver's identifier is the person's.
        approver=str(person["staff_id"]) if is_self(person, approver, public) else approver,
        valid=Span(*(_moment(at) for at in paper["valid"])),
        signature_valid=public is not None
        and all(paper[field] == person[field] for field in WHAT_IS_APPROVED[1:])
        and is_signed(paper, public, APPROVAL_CONTEXT),
        revoked=revoked,
    )


def read_acknowledgement(paper: Mapping[str, Any], person: Mapping[str, Any]) -> Acknowledgement:
    """Return an acknowledgement as the rules see it. Raises as ``read_approval``."""
    if not _SHA256.fullmatch(paper["notice_sha256"]):
        raise ValueError("no notice is named")
    return Acknowledgement(
        staff_id=str(paper["staff_id"]),
        notice_sha256=Sha256Hex(paper["notice_sha256"]),
        signature_valid=paper["login_sha256"] == person["login_sha256"]
        and is_signed(paper, str(person["public_key"]), ACKNOWLEDGEMENT_CONTEXT),
    )


def is_signed(paper: Mapping[str, Any], public: str, context: str) -> bool:
    """Say whether the whole of ``paper`` was signed by the key ``public``, as this kind of paper."""
    document = {name: value for name, value in paper.items() if name != "signature"}
    try:
        return _verified(canonical(document), str(paper["signature"]), public=public, context=context)
    except (TypeError, ValueError):  # what has no canonical form, nobody signed
        return False


_verified = lru_cache(maxsize=1024)(verify_canonical)
"""The same bytes under the same key stay signed or not; whether the paper counts now is asked elsewhere."""


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text} is beyond the calendar") from error


def is_self(person: Mapping[str, Any], approver: str, public: str | None) -> bool:
    """Say whether an approver is the person, by name or by key."""
    return bool(approver.casefold() == person["staff_id"] or public == person["public_key"])


def login_sha256(login: Mapping[str, Json]) -> Sha256Hex:
    """Name a login: a password set, a code secret renewed or a subject exchanged by anybody gives another."""
    return Sha256Hex(hashlib.sha256(canonical(login)).hexdigest())
