"""The rules of ``domain.access`` with what is on file at hand: asked anew each time, refusals on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from videostore import telemetry
from videostore.domain.access import (
    AccessPolicy,
    Decision,
    Dossier,
    Grant,
    Mode,
    decide_search,
    decide_serving,
    right_to_see,
)
from videostore.domain.camera import CameraId
from videostore.domain.errors import AccessRefused
from videostore.domain.ledger import Event, Json
from videostore.domain.refusal import told
from videostore.domain.segment import Span
from videostore.gate.casebook import Book, Casebook
from videostore.ports import Clock, Ledger, StaffDirectory

_WHY_REFUSED = (
    "`videostore whoami` shows what is on file about you; docs/reference/codes.md explains the code."
)


class Rules:
    """What may be done by whom, now. Safe to share between threads."""

    def __init__(
        self,
        *,
        staff: StaffDirectory,
        ledger: Ledger,
        clock: Clock,
        policy: Callable[[], AccessPolicy],
        casebook: Casebook,
    ) -> None:
        self._staff = staff
        self._ledger = ledger
        self._casebook = casebook
        self._clock = clock
        self.policy = policy

    def now(self) -> datetime:
        """The latest time it may be: a clock in doubt never keeps a right alive."""
        return self._clock.read().latest

    def book(self) -> Book:
        """Return incidents, requests and grants as they are on record now."""
        return self._casebook.follow()

    def dossier(self, staff_id: str) -> Dossier | None:
        return self.book().valid(self._staff.dossier(staff_id))

    def right(self, staff_id: str) -> Decision:
        """Return whether a person may see footage now, or why not."""
        return right_to_see(self.dossier(staff_id), policy=self.policy(), now=self.now())

    def may_search(self, staff_id: str, incident_id: str) -> Decision:
        """Return whether a person may learn what there is, for this incident."""
        book = self.book()
        return decide_search(
            dossier=book.valid(self._staff.dossier(staff_id)),
            incident=book.incidents.get(incident_id),
            policy=self.policy(),
            now=self.now(),
        )

    def may_leave(
        self, staff_id: str, grant: Grant | None, mode: Mode, camera_id: CameraId, span: Span
    ) -> Decision:
        """Return whether footage may leave under a grant."""
        book = self.book()
        return decide_serving(
            grant,
            dossier=book.valid(self._staff.dossier(staff_id)),
            incident=book.incidents.get(grant.request.incident_id) if grant else None,
            mode=mode,
            camera_id=camera_id,
            span=span,
            policy=self.policy(),
            now=self.now(),
        )

    def check(self, staff_id: str, action: str, decision: Decision, **facts: Json) -> None:
        """Record and raise a refusal."""
        telemetry.GATE_DECISIONS.labels(reason=decision.reason.value).inc()
        if decision.allowed:
            return
        body: Mapping[str, Json] = {"action": action, "reason": decision.reason.value, **facts}
        self._ledger.append(Event.REFUSED, actor=staff_id, body=body)
        raise AccessRefused(told(decision.reason), hint=_WHY_REFUSED)
