"""Which footage there is, and which is missing. That alone is information: it needs an open incident."""

from __future__ import annotations

from collections.abc import Collection

from videostore.domain.access import Decision, Reason
from videostore.domain.camera import CameraId
from videostore.domain.ledger import Event, Json
from videostore.domain.segment import Gap, Segment, Span
from videostore.gate.rules import Rules
from videostore.ports import Catalogue, Ledger


class Search:
    """Looks into the catalogue for people. Safe to share between threads."""

    def __init__(self, rules: Rules, *, ledger: Ledger, catalogue: Catalogue) -> None:
        self._rules = rules
        self._ledger = ledger
        self._catalogue = catalogue

    def find(
        self, staff_id: str, incident_id: str, cameras: Collection[CameraId], span: Span
    ) -> tuple[list[Segment], list[Gap]]:
        """Return the segments and the gaps of ``cameras`` in ``span``."""
        decision = self._rules.may_search(staff_id, incident_id)
        if decision.allowed and span.duration > self._rules.policy().max_span:
            decision = Decision(Reason.SPAN_TOO_LONG)
        self._rules.check(staff_id, "search", decision, incident_id=incident_id)
        segments = self._catalogue.segments(cameras, span)
        gaps = self._catalogue.gaps(cameras, span)
        body: dict[str, Json] = {
            "incident_id": incident_id,
            "cameras": [str(camera) for camera in sorted(cameras)],
            "start": span.start.isoformat(),
            "end": span.end.isoformat(),
            "segments": len(segments),
        }
        self._ledger.append(Event.SEARCHED, actor=staff_id, body=body)
        return segments, gaps
