"""Authenticators: one-time codes (RFC 6238), and their secrets, which lie sealed on disk.

The key that seals them lies elsewhere than the files of people: whoever reads those alone, from a share or a
copy, makes no code. What an approver signs is over the secret, not over its seal.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from datetime import datetime

import pyotp

from videostore.domain.errors import RequestInvalid
from videostore.domain.identity import CODE_PERIOD, code_step
from videostore.ports import MasterKey

NO_SECRET = "A" * 32
_SECRET = re.compile(r"[A-Z2-7]{32}")
_CONTEXT = b"authenticator"

new_secret = pyotp.random_base32


class Sealed:
    """The logins of a staff directory as its files have them. ``key`` is asked for when it is needed."""

    def __init__(self, key: Callable[[], MasterKey]) -> None:
        self._key = key
        self._secrets: dict[str, str] = {}

    def close(self, login: dict[str, str]) -> dict[str, str]:
        """Return a login with its secret sealed."""
        secret = login.get("totp")
        if secret is None:
            return login
        sealed = base64.b64encode(self._key().wrap(secret.encode(), context=_CONTEXT)).decode()
        return {"password": login["password"], "totp_sealed": sealed}

    def open(self, login: dict[str, str]) -> dict[str, str]:
        """Return a login as it was before ``close``; one that lies in clear is returned as it is.

        Raises ValueError if it is no login, SealBroken or KeyUnavailable if its secret cannot be had.
        """
        if set(login) == {"password", "totp_sealed"}:
            sealed = login["totp_sealed"]
            if sealed not in self._secrets:
                wrapped = base64.b64decode(sealed, validate=True)
                self._secrets[sealed] = self._key().unwrap(wrapped, context=_CONTEXT).decode()
            login = {"password": login["password"], "totp": self._secrets[sealed]}
        if set(login) not in ({"password", "totp"}, {"issuer", "subject"}):
            raise ValueError("that is no login")
        if not _SECRET.fullmatch(login.get("totp", NO_SECRET)):
            raise ValueError("that is no secret of an authenticator")
        return login


def enrolment(site: str, staff_id: str, secret: str) -> str:
    """Return the ``otpauth://`` address that an authenticator takes a secret from."""
    return pyotp.TOTP(secret).provisioning_uri(name=staff_id, issuer_name=f"videostore {site}")


def current_code(secret: str, *, now: datetime) -> str:
    """Return the code that an authenticator shows at ``now``."""
    if not _SECRET.fullmatch(secret):
        raise RequestInvalid(
            "that is not the secret of an authenticator", hint="It has 32 letters and digits."
        )
    return pyotp.TOTP(secret).at(now)


def step_of(secret: str, code: str, now: datetime) -> int | None:
    """Return the period whose code this is, of those around ``now``; always as much work."""
    totp, this = pyotp.TOTP(secret, interval=int(CODE_PERIOD.total_seconds())), code_step(now)
    given = code.replace(" ", "").encode()
    found = [step for step in (this - 1, this, this + 1)
             if hmac.compare_digest(totp.generate_otp(step).encode(), given)]  # fmt: skip
    return found[0] if found else None
