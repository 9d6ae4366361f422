"""Routes of oversight: reviews of broken glasses, and the ledger. Thin, as in ``gate.api``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from videostore.domain.ledger import Event
from videostore.gate.inputs import Body, StaffId
from videostore.gate.service import Gate


class VerdictBody(Body):
    verdict: str = Field(max_length=1000)


class LedgerBody(Body):
    last: int = Field(20, ge=1, le=1000)
    event: Event | None = None


def oversight_routes(gate: Gate) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1")

    @router.get("/reviews")
    def reviews(staff_id: StaffId) -> list[dict[str, Any]]:
        """Return the grants taken by breaking the glass that nobody has looked at."""
        return [
            {
                "grant_id": grant.id,
                "staff_id": grant.request.staff_id,
                "mode": grant.request.mode,
                "cameras": sorted(str(camera) for camera in grant.request.cameras),
                "start": grant.request.span.start,
                "end": grant.request.span.end,
                "granted_at": grant.granted_at,
                "why": grant.request.break_glass,
            }
            for grant in gate.oversight.unreviewed(staff_id)
        ]

    @router.post("/reviews/{grant_id}")
    def review(staff_id: StaffId, grant_id: str, body: VerdictBody) -> dict[str, Any]:
        """Say what a second person found about one."""
        gate.oversight.review(staff_id, grant_id, body.verdict)
        return {}

    @router.post("/ledger")
    def ledger(staff_id: StaffId, body: LedgerBody) -> list[dict[str, Any]]:
        """Return the newest records. A POST, for it writes: reading the ledger is itself recorded."""
        found = gate.oversight.records(staff_id, last=body.last, event=body.event)
        return [{**record.to_json(), "hash": record.hash} for record in found]

    return router
