"""Who is logged in: tokens in memory, of which only hashes are kept. A restart of the gate ends all."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

from videostore.domain.errors import NotLoggedIn
from videostore.domain.segment import Sha256Hex

_HINT = "videostore login STAFF_ID"


@dataclass(slots=True)
class Login:
    """One session. It ends after ``idle`` without use, in any case at ``ends_at``, and with the approval it
    was begun under (``approved``) or the login it was begun by."""

    staff_id: str
    login_sha256: Sha256Hex
    approved: bool
    ends_at: datetime
    used_at: datetime


class Logins:
    """All sessions of a gate; safe to share between threads."""

    def __init__(self, *, idle: timedelta, longest: timedelta) -> None:
        self._idle = idle
        self._longest = longest
        self._logins: dict[str, Login] = {}
        self._lock = Lock()

    def begin(
        self, staff_id: str, *, login_sha256: Sha256Hex, approved_until: datetime | None, now: datetime
    ) -> tuple[str, Login]:
        """Return a fresh token and its session, which is not longer than the approval."""
        token = secrets.token_urlsafe(32)
        longest = now + self._longest
        login = Login(
            staff_id, login_sha256, approved_until is not None, min(longest, approved_until or longest), now
        )
        with self._lock:
            self._drop_ended(now)
            self._logins[_hash(token)] = login
        return token, login

    def find(self, token: str, *, now: datetime) -> Login:
        """Return the session of this token, and count it as used. Raises NotLoggedIn."""
        with self._lock:
            self._drop_ended(now)
            login = self._logins.get(_hash(token))
            if login is None:
                raise NotLoggedIn("you are not logged in, or your login has ended", hint=_HINT)
            login.used_at = now
            return login

    def end(self, token: str) -> None:
        with self._lock:
            self._logins.pop(_hash(token), None)

    def end_all(self, staff_id: str) -> None:
        """End every session of a person."""
        with self._lock:
            for key in [key for key, login in self._logins.items() if login.staff_id == staff_id]:
                del self._logins[key]

    def _drop_ended(self, now: datetime) -> None:
        for key, login in list(self._logins.items()):
            if now >= login.ends_at or now - login.used_at >= self._idle or now < login.used_at - self._idle:
                del self._logins[key]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
