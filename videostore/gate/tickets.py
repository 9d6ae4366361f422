"""Tickets: how a player that cannot log in gets to one serving, and to nothing else.

A ticket stands in a URL, on a screen or a command line, where others may read it: it works once, within two
minutes. Some players open what they are given twice before they go on (mpv does): until what a ticket was
changed for is used, the same address may change it again, and what it was changed for before ends. What is
used goes on working until the serving ends, and only the player learns it. Neither is ever logged.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

from videostore.domain.errors import NotLoggedIn

LIFETIME = timedelta(minutes=2)
"""How long a ticket waits to be used."""
AGAIN = timedelta(seconds=10)
"""How long the address that changed it may change it again, if nothing was fetched meanwhile."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to fetch one serving until ``ends_at``. ``staff_id`` asks the login that it was made under, and
    raises NotLoggedIn when that has ended."""

    serving_id: str
    staff_id: Callable[[], str]
    use_by: datetime
    ends_at: datetime


class Tickets:
    """All tickets of a gate; safe to share between threads. A restart of the gate ends all."""

    def __init__(self) -> None:
        self._unused: dict[str, Ticket] = {}
        self._changed: dict[str, tuple[str, datetime, str]] = {}  # by whom, until when again, for which
        self._used: dict[str, Ticket] = {}
        self._lock = Lock()

    def issue(
        self, serving_id: str, staff_id: Callable[[], str], *, now: datetime, ends_at: datetime
    ) -> tuple[str, Ticket]:
        """Return a fresh secret and the ticket it stands for."""
        secret, ticket = secrets.token_urlsafe(32), Ticket(serving_id, staff_id, now + LIFETIME, ends_at)
        with self._lock:
            self._unused = {key: one for key, one in self._unused.items() if now < one.use_by}
            self._used = {key: one for key, one in self._used.items() if now < one.ends_at}
            self._changed = {key: one for key, one in self._changed.items() if now < one[1]}
            self._unused[_hash(secret)] = ticket
        return secret, ticket

    def change(self, secret: str, *, address: str, now: datetime) -> tuple[str, Ticket]:
        """Take a ticket, and return what the player at ``address`` goes on with. Raises NotLoggedIn."""
        with self._lock:
            by, until, former = self._changed.get(_hash(secret), ("", now, ""))
            again = by == address and now < until
            ticket = self._used.pop(former, None) if again else self._unused.pop(_hash(secret), None)
            if ticket is None or now >= ticket.use_by:
                raise NotLoggedIn("this address was used already, or too late", hint=_HINT)
            fresh = secrets.token_urlsafe(32)
            self._changed[_hash(secret)] = address, until if again else now + AGAIN, _hash(fresh)
            self._used[_hash(fresh)] = ticket
        return fresh, ticket

    def find(self, secret: str, *, now: datetime) -> Ticket:
        """Return the ticket that was changed for ``secret``, and count it as used. Raises NotLoggedIn."""
        with self._lock:
            ticket = self._used.get(_hash(secret))
            if ticket is not None:
                self._changed = {key: one for key, one in self._changed.items() if one[2] != _hash(secret)}
        if ticket is None or now >= ticket.ends_at:
            raise NotLoggedIn("this address plays no more", hint=_HINT)
        return ticket


_HINT = "Ask for a new one: `videostore play --url`."


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
