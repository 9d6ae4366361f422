"""Who is logged in: tokens in memory, of which only hashes are kept. A restart of the gate ends all."""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

from videostore.domain.errors import NotLoggedIn

_FAILURES = 10
_WINDOW = timedelta(minutes=1)
_HINT = "videostore login STAFF_ID"


@dataclass(slots=True)
class Login:
    """One login. It ends after ``idle`` without use, and in any case at ``ends_at``."""

    staff_id: str
    ends_at: datetime
    used_at: datetime


class Logins:
    """All logins of a gate; safe to share between threads."""

    def __init__(self, *, idle: timedelta, longest: timedelta) -> None:
        self._idle = idle
        self._longest = longest
        self._logins: dict[str, Login] = {}
        self._failures: dict[tuple[str, str], deque[datetime]] = {}
        self._lock = Lock()

    def begin(self, staff_id: str, *, now: datetime) -> tuple[str, Login]:
        """Return a fresh token and its login."""
        token = secrets.token_urlsafe(32)
        login = Login(staff_id, now + self._longest, now)
        with self._lock:
            self._drop_ended(now)
            self._logins[_hash(token)] = login
        return token, login

    def staff_id(self, token: str, *, now: datetime) -> str:
        """Return whose token this is, and count it as used. Raises NotLoggedIn."""
        with self._lock:
            self._drop_ended(now)
            login = self._logins.get(_hash(token))
            if login is None:
                raise NotLoggedIn("you are not logged in, or your login has ended", hint=_HINT)
            login.used_at = now
            return login.staff_id

    def end(self, token: str) -> None:
        with self._lock:
            self._logins.pop(_hash(token), None)

    # --- guessing ---

    def check_rate(self, staff_id: str, address: str, *, now: datetime) -> None:
        """Raise NotLoggedIn if this address has guessed too often. Others of the same name are not held up:
        nobody can lock an officer out in an emergency."""
        with self._lock:
            failures = self._failures.get((staff_id, address), deque())
            while failures and now - failures[0] > _WINDOW:
                failures.popleft()
            if len(failures) >= _FAILURES:
                raise NotLoggedIn("too many attempts from here", hint="Wait a minute, then try again.")

    def note_failure(self, staff_id: str, address: str, *, now: datetime) -> None:
        with self._lock:
            if len(self._failures) > 10_000:
                self._failures.clear()
            self._failures.setdefault((staff_id, address), deque()).append(now)

    def _drop_ended(self, now: datetime) -> None:
        for key, login in list(self._logins.items()):
            if now >= login.ends_at or now - login.used_at >= self._idle or now < login.used_at - self._idle:
                del self._logins[key]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
