"""The gate: the one door through which footage reaches people. Every method asks the rules anew.

Nothing leaves before its record is durable in the ledger; a ledger that cannot be written or does not
verify closes the door.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from threading import Lock

from videostore import telemetry
from videostore.domain.access import (
    AccessPolicy,
    Decision,
    Grant,
    Incident,
    Mode,
    Purpose,
    Reason,
    Request,
    decide_request,
    decide_second_person,
)
from videostore.domain.breach import WatchPolicy
from videostore.domain.camera import CameraId
from videostore.domain.ledger import Event, Json
from videostore.domain.presence import Roll
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import Span
from videostore.gate.bookmark import Bookmark
from videostore.gate.casebook import Book, Casebook, request_body
from videostore.gate.entrance import Entrance
from videostore.gate.export import Exports, Unit
from videostore.gate.footage import Footage, Serving
from videostore.gate.logins import Logins
from videostore.gate.oidc import Provider
from videostore.gate.oversight import Oversight, Watched, one_line
from videostore.gate.pictures import Pictures
from videostore.gate.rules import Rules
from videostore.gate.search import Search
from videostore.gate.tickets import Ticket, Tickets
from videostore.ports import (
    Catalogue,
    Clock,
    Draft,
    Keyring,
    Ledger,
    PresenceRecords,
    SegmentStore,
    StaffDirectory,
)


class Gate:
    """Decides, records, serves. Safe to share between threads. ``staff_id`` is always a logged-in person."""

    def __init__(
        self,
        *,
        staff: StaffDirectory,
        ledger: Ledger,
        store: SegmentStore,
        catalogue: Catalogue,
        keyring: Keyring,
        presence: PresenceRecords,
        clock: Clock,
        logins: Logins,
        policy: Callable[[], AccessPolicy],
        retention: Callable[[], RetentionPolicy],
        unit: Unit,
        notice: Callable[[], str],
        provider: Provider | None = None,
        watch: Callable[[], WatchPolicy] = WatchPolicy,
        approvers: Callable[[], Mapping[str, str]],
        bookmarks: tuple[Bookmark[Book], Bookmark[Watched]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._presence = presence
        kept, watched = bookmarks or (None, None)
        self._casebook = Casebook(ledger, kept)
        self._rules = Rules(
            staff=staff,
            ledger=ledger,
            clock=clock,
            policy=lambda: self.oversight.noted(policy()),
            casebook=self._casebook,
        )
        self.entrance = Entrance(
            self._rules, staff=staff, ledger=ledger, logins=logins, notice=notice, provider=provider
        )
        self.footage = Footage(
            self._rules, ledger=ledger, store=store, catalogue=catalogue, keyring=keyring, retention=retention
        )
        self._tickets = Tickets()
        self._approving = Lock()  # one at a time: a request leads to one grant
        self.oversight = Oversight(
            self._rules, ledger=ledger, policy=watch, approvers=approvers, bookmark=watched
        )
        self.search = Search(self._rules, ledger=ledger, catalogue=catalogue, retention=retention)
        self.pictures = Pictures(self.footage)
        self.exports = Exports(
            self._rules,
            footage=self.footage,
            search=self.search,
            catalogue=catalogue,
            ledger=ledger,
            unit=unit,
        )

    def read(self) -> None:
        """Read what the ledger tells before anybody waits for it. Raises LedgerError."""
        self._rules.book()

    def keep(self) -> None:
        """Keep what was made of the ledger, so that the next start reads only what comes after."""
        self._casebook.keep()
        self.oversight.keep()

    # --- who is there ---

    def right(self, staff_id: str) -> Decision:
        """Return whether a person may see footage now, or why not."""
        return self._rules.right(staff_id)

    def require_right(self, staff_id: str, action: str) -> None:
        """Raise AccessRefused, on record, for a person who may not see footage now."""
        self._rules.check(staff_id, action, self.right(staff_id))

    # --- why ---

    def open_incident(self, staff_id: str, purpose: Purpose, reference: str) -> Incident:
        """Open an incident: the only occasion on which footage may be seen."""
        self.require_right(staff_id, "open-incident")
        reference = one_line(reference, "reference")
        incident_id = secrets.token_hex(8)
        body: dict[str, Json] = {
            "incident_id": incident_id,
            "purpose": purpose.value,
            "reference": reference,
        }
        self._ledger.append(Event.INCIDENT_OPENED, actor=staff_id, body=body)
        return self._rules.book().incidents[incident_id]

    def close_incident(self, staff_id: str, incident_id: str) -> Incident:
        """Close an incident; every viewing under it stops at its next segment."""
        decision = self._rules.may_search(staff_id, incident_id)
        self._rules.check(staff_id, "close-incident", decision, incident_id=incident_id)
        self._ledger.append(Event.INCIDENT_CLOSED, actor=staff_id, body={"incident_id": incident_id})
        return self._rules.book().incidents[incident_id]

    def incidents(self, staff_id: str) -> list[Incident]:
        """Return the incidents that are open, newest first."""
        self.require_right(staff_id, "list-incidents")
        found = [
            incident for incident in list(self._rules.book().incidents.values()) if incident.closed_at is None
        ]
        return sorted(found, key=lambda incident: incident.opened_at, reverse=True)

    # --- what ---

    def request(
        self,
        staff_id: str,
        incident_id: str,
        cameras: Collection[CameraId],
        span: Span,
        mode: Mode,
        break_glass: str = "",
    ) -> tuple[Request, Grant | None]:
        """Ask for footage. Returns the request, and the grant unless a second person has to approve it.

        ``break_glass`` says why nobody can be waited for: where the policy allows it the grant is there at
        once, alarmed, and stays on a list until a second person has reviewed it.
        """
        why = one_line(break_glass, "reason") if break_glass else ""
        request = Request(secrets.token_hex(8), staff_id, incident_id, frozenset(cameras), span, mode, why)
        decision = decide_request(
            request,
            dossier=self._rules.dossier(staff_id),
            incident=self._rules.book().incidents.get(incident_id),
            policy=self._rules.policy(),
            now=self._rules.now(),
        )
        if decision.reason is not Reason.SECOND_PERSON_NEEDED:
            self._rules.check(staff_id, "request", decision, **request_body(request))
        else:
            telemetry.GATE_DECISIONS.labels(reason=decision.reason.value).inc()
        asked = (Event.REQUESTED, staff_id, request_body(request))
        if decision.allowed:
            return request, self._grant(request, by=staff_id, second_person="", after=[asked])
        self._ledger.append_all([asked])
        return request, None

    def pending(self, staff_id: str) -> list[Request]:
        """Return the requests that wait for a second person, oldest first."""
        self.require_right(staff_id, "list-requests")
        book = self._rules.book()
        return [
            request
            for request in list(book.requests.values())
            if request.id not in book.decided
            and (incident := book.incidents.get(request.incident_id)) is not None
            and incident.closed_at is None
        ]

    def approve(self, staff_id: str, request_id: str) -> Grant:
        """Approve somebody else's request. Of two who do so at once, the second is refused."""
        with self._approving:
            grant = self._approve(staff_id, request_id)
        if grant.revoked:  # another process was first
            self._rules.check(
                staff_id, "approve", Decision(Reason.REQUEST_ALREADY_DECIDED), request_id=request_id
            )
        return grant

    def _approve(self, staff_id: str, request_id: str) -> Grant:
        book = self._rules.book()
        request = book.requests.get(request_id)
        decision = decide_second_person(
            request,
            decided=request_id in book.decided,
            requester=self._rules.dossier(request.staff_id) if request else None,
            second=self._rules.dossier(staff_id),
            incident=book.incidents.get(request.incident_id) if request else None,
            policy=self._rules.policy(),
            now=self._rules.now(),
        )
        self._rules.check(staff_id, "approve", decision, request_id=request_id)
        assert request is not None
        return self._grant(request, by=staff_id, second_person=staff_id)

    def grant_of(self, staff_id: str, request_id: str) -> Grant:
        """Return the grant of one's own request, once a second person has approved it."""
        grants = list(self._rules.book().grants.values())
        grant = next((one for one in grants if one.request.id == request_id), None)
        decision = self.right(staff_id)
        if decision.allowed and (grant is None or grant.request.staff_id != staff_id):
            waits = request_id in self._rules.book().requests and grant is None
            decision = Decision(Reason.SECOND_PERSON_NEEDED if waits else Reason.REQUEST_UNKNOWN)
        self._rules.check(staff_id, "fetch-grant", decision, request_id=request_id)
        assert grant is not None
        return grant

    def grants(self, staff_id: str) -> list[Grant]:
        """Return the grants in force, oldest first."""
        self.require_right(staff_id, "list-grants")
        book, now = self._rules.book(), self._rules.now()
        return [
            grant
            for grant in list(book.grants.values())
            if not grant.revoked
            and now < grant.expires_at
            and book.incidents[grant.request.incident_id].closed_at is None
        ]

    def revoke_grant(self, staff_id: str, grant_id: str) -> None:
        """End a grant: one's own, or as any approved person somebody else's."""
        decision = self.right(staff_id)
        if decision.allowed and grant_id not in self._rules.book().grants:
            decision = Decision(Reason.GRANT_UNKNOWN)
        self._rules.check(staff_id, "revoke-grant", decision, grant_id=grant_id)
        self._ledger.append(Event.GRANT_REVOKED, actor=staff_id, body={"grant_id": grant_id})

    # --- players that cannot log in ---

    def issue_ticket(self, serving: Serving, token: str) -> tuple[str, Ticket]:
        """Return a ticket for one's own serving. What it opens ends with the grant and with the login."""
        self.footage.ask(serving, serving.grant.request.span)
        return self._tickets.issue(
            serving.id,
            lambda: self.entrance.staff_id(token),
            now=self._rules.now(),
            ends_at=serving.grant.expires_at,
        )

    def change_ticket(self, secret: str, *, address: str) -> tuple[str, Serving]:
        """Return what a player goes on with, once. Raises NotLoggedIn, AccessRefused."""
        player, ticket = self._tickets.change(secret, address=address, now=self._rules.now())
        serving = self.footage.serving(ticket.staff_id(), ticket.serving_id)
        self.footage.ask(serving, serving.grant.request.span)
        return player, serving

    def serving_of_player(self, secret: str) -> Serving:
        """Return what a player may fetch. Raises NotLoggedIn, AccessRefused."""
        ticket = self._tickets.find(secret, now=self._rules.now())
        return self.footage.serving(ticket.staff_id(), ticket.serving_id)

    # --- entry and exit ---

    def on_premises(self, staff_id: str, incident_id: str, at: datetime) -> Roll:
        """Return who was inside at ``at``, for an open incident, and what could not be read of it."""
        decision = self._rules.may_search(staff_id, incident_id)
        self._rules.check(staff_id, "presence", decision, incident_id=incident_id)
        roll = self._presence.on_premises(at)
        body: dict[str, Json] = {
            "incident_id": incident_id,
            "at": at.isoformat(),
            "people": len(roll.inside),
            "hours_unread": len({one.hour for one in roll.unread}),
        }
        self._ledger.append(Event.PRESENCE_READ, actor=staff_id, body=body)
        return roll

    def _grant(self, request: Request, *, by: str, second_person: str, after: Sequence[Draft] = ()) -> Grant:
        """Record a grant, at once with what stands before it."""
        grant_id = secrets.token_hex(8)
        body: dict[str, Json] = {
            "grant_id": grant_id,
            "request_id": request.id,
            "staff_id": request.staff_id,
            "second_person": second_person,
            "expires_at": (self._rules.now() + self._rules.policy().grant_lifetime).isoformat(),
        }
        drafts = [*after, (Event.GRANTED, by, body)]
        if request.break_glass:
            glass: dict[str, Json] = {"grant_id": grant_id, "why": request.break_glass}
            drafts.insert(-1, (Event.BREAK_GLASS, by, glass))
        self._ledger.append_all(drafts)
        if request.break_glass:
            self.oversight.look()  # alarmed at once
        return self._rules.book().grants[grant_id]
