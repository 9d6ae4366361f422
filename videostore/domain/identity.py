"""Who somebody is: the rules of logging in, as pure functions.

A person on file has one way to log in. With a local account, a password (Argon2id, RFC 9106) and a
one-time code (TOTP, RFC 6238); with OpenID Connect, an ID token of the site's provider whose issuer and
subject stand on file. The rules take what was proved, and one ``now``. A person who is refused is told
no more than that; the ledger has the fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeGuard

from videostore.domain.segment import Sha256Hex

CODE_PERIOD = timedelta(seconds=30)
"""How long one code of RFC 6238 is shown; it is believed one period early and one late."""
CODE_TRIES = 5
"""Wrong codes after a right password that lock an account: whoever tries knows the password already."""


class Fault(StrEnum):
    """Why a login was refused. Stable codes, written to the ledger and never told to who tried."""

    STAFF_UNKNOWN = "staff-unknown"
    SUSPENDED = "suspended"
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 - a code
    WRONG_CODE = "wrong-code"
    CODE_USED = "code-used-before"
    LOCKED = "account-locked"
    SUBJECT_UNKNOWN = "subject-unknown"
    PROVIDER_REFUSED = "provider-refused"
    TOKEN_MALFORMED = "token-malformed"  # noqa: S105 - a code
    TOKEN_UNSIGNED = "token-signature-invalid"  # noqa: S105 - a code
    ISSUER_WRONG = "token-of-another-issuer"
    AUDIENCE_WRONG = "token-for-another-client"
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - a code
    TOKEN_FROM_FUTURE = "token-from-the-future"  # noqa: S105 - a code
    NONCE_WRONG = "token-of-another-login"


@dataclass(frozen=True, slots=True)
class Identity:
    """A person as a provider of OpenID Connect names them; ``subject`` is unique under its ``issuer``."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What a person proved with a local account.

    ``login_sha256`` names the login on file, ``step`` the period whose code was given, None if it is no
    code of now.
    """

    login_sha256: Sha256Hex
    suspended: bool
    password: bool
    step: int | None


@dataclass(frozen=True, slots=True)
class History:
    """What the ledger tells of a login: wrong codes since the last right one, and its last code's period."""

    wrong_codes: int = 0
    last_step: int = -1


def code_step(now: datetime) -> int:
    """Return the number of the period of RFC 6238 in which ``now`` lies."""
    return int(now.timestamp() // CODE_PERIOD.total_seconds())


def judge_proof(proof: Proof | None, history: History) -> Fault | None:
    """Return why a local login is refused, or None. A locked account stays so until its login is changed."""
    if proof is None:
        return Fault.STAFF_UNKNOWN
    if history.wrong_codes >= CODE_TRIES:
        return Fault.LOCKED
    if not proof.password:
        return Fault.WRONG_PASSWORD
    if proof.step is None:
        return Fault.WRONG_CODE
    if proof.step <= history.last_step:
        return Fault.CODE_USED
    return Fault.SUSPENDED if proof.suspended else None


def judge_claims(
    claims: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    nonce: str | None,
    skew: timedelta,
    now: datetime,
) -> Fault | None:
    """Return why the claims of an ID token, whose signature is valid, are refused, or None.

    OpenID Connect Core 1.0, section 3.1.3.7. ``nonce`` is None in the device flow, which has none
    (RFC 8628): there the token came straight from the provider for a device code that we hold.
    """
    subject, expires, issued = claims.get("sub"), claims.get("exp"), claims.get("iat")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        return Fault.TOKEN_MALFORMED
    begins = claims.get("nbf", issued)
    if not (_is_time(expires) and _is_time(issued) and _is_time(begins)):
        return Fault.TOKEN_MALFORMED
    if claims.get("iss") != issuer:
        return Fault.ISSUER_WRONG
    if not _is_for(client_id, claims):
        return Fault.AUDIENCE_WRONG
    moment, tolerance = now.timestamp(), skew.total_seconds()
    if moment >= expires + tolerance:
        return Fault.TOKEN_EXPIRED
    if max(issued, begins) > moment + tolerance:
        return Fault.TOKEN_FROM_FUTURE
    if nonce is not None and claims.get("nonce") != nonce:
        return Fault.NONCE_WRONG
    return None


def _is_for(client_id: str, claims: Mapping[str, Any]) -> bool:
    """Say whether the token is for this client and no other: a token shared with others proves nothing."""
    audience = claims.get("aud")
    return audience in (client_id, [client_id]) and claims.get("azp", client_id) == client_id


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
