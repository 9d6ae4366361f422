"""HTTP of the gate, version 1. Thin: each route reads its input, asks the Gate, writes the answer.

Every route but ``/healthz``, those by which somebody logs in and those of players that cannot needs
``Authorization: Bearer TOKEN``. Times are ISO 8601 with a zone. Errors are
``{"error", "message", "reason", "hint"}`` with the status of their class.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videostore import telemetry
from videostore.domain import access
from videostore.domain.access import Mode, Purpose
from videostore.domain.camera import Camera
from videostore.domain.errors import AccessRefused, FootageDeleted, RequestInvalid, VideostoreError
from videostore.gate.entrance_routes import entrance_routes
from videostore.gate.footage_routes import (
    export_routes,
    footage_routes,
    picture_routes,
    playlist_routes,
    search_routes,
    ticket_routes,
)
from videostore.gate.guard import Guard
from videostore.gate.inputs import Body, Cameras, Empty, Moment, StaffId, find_all, read_span
from videostore.gate.oidc_routes import oidc_routes
from videostore.gate.oversight_routes import oversight_routes
from videostore.gate.page_routes import page_routes
from videostore.gate.refusals import refusals
from videostore.gate.service import Gate

log = telemetry.logger("gate")


class IncidentBody(Body):
    purpose: Purpose
    reference: str


class RequestBody(Body):
    incident_id: str
    cameras: list[str] = Field(min_length=1, max_length=1000)
    start: Moment
    end: Moment
    mode: Mode = Mode.VIEW
    break_glass: str = Field("", max_length=1000)


class PresenceBody(Body):
    incident_id: str
    at: Moment


def create_api(gate: Gate, *, find_camera: Cameras, all_cameras: Callable[[], list[Camera]]) -> FastAPI:
    """Return the application. ``find_camera`` and ``all_cameras`` follow the site's list."""
    api = FastAPI(
        title="videostore gate",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        responses=refusals(),
    )
    api.add_exception_handler(VideostoreError, _on_error)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(HTTPException, _on_unread)
    api.add_middleware(_Measured)
    api.add_middleware(Guard)
    api.state.gate = gate

    @api.get("/healthz")
    def healthz() -> dict[str, bool]:
        """Say that the gate runs."""
        return {"ok": True}

    api.include_router(entrance_routes(gate))
    api.include_router(oidc_routes(gate))
    api.include_router(_cases(gate))
    api.include_router(search_routes(gate, find_camera, all_cameras))
    api.include_router(_grants(gate, find_camera))
    api.include_router(footage_routes(gate, find_camera))
    api.include_router(export_routes(gate, find_camera))
    api.include_router(playlist_routes(gate))
    api.include_router(picture_routes(gate))
    api.include_router(ticket_routes(gate))
    api.include_router(oversight_routes(gate))
    api.include_router(page_routes())
    return api


def _cases(gate: Gate) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/incidents")
    def open_incident(staff_id: StaffId, body: IncidentBody) -> dict[str, Any]:
        """Open an incident. ``reference``: one line of at most 200 characters, which the ledger keeps."""
        return _incident(gate.open_incident(staff_id, body.purpose, body.reference))

    @router.get("/incidents")
    def incidents(staff_id: StaffId) -> list[dict[str, Any]]:
        """Return the open incidents."""
        return [_incident(incident) for incident in gate.incidents(staff_id)]

    @router.post("/incidents/{incident_id}/close")
    def close_incident(staff_id: StaffId, incident_id: str, _: Empty) -> dict[str, Any]:
        """Close an incident: every viewing under it ends at its next segment."""
        return _incident(gate.close_incident(staff_id, incident_id))

    @router.post("/presence")
    def presence(staff_id: StaffId, body: PresenceBody) -> dict[str, Any]:
        """Return who was inside at a moment, by the doors; and the hours of which records are ``unread``."""
        roll = gate.on_premises(staff_id, body.incident_id, body.at.astimezone(UTC))
        return {
            "inside": [{"badge": one.badge, "door": one.door, "since": one.read_at} for one in roll.inside],
            "unread": [{"hour": one.hour, "records": one.records, "why": one.why} for one in roll.unread],
        }

    return router


def _grants(gate: Gate, find_camera: Cameras) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/requests")
    def request_footage(staff_id: StaffId, body: RequestBody) -> dict[str, Any]:
        """Ask for footage. ``grant`` is null while a second person is waited for."""
        cameras = [camera.id for camera in find_all(gate, staff_id, find_camera, body.cameras)]
        asked, grant = gate.request(
            staff_id, body.incident_id, cameras, read_span(body.start, body.end), body.mode, body.break_glass
        )
        return {**_request(asked), "grant": _grant(grant) if grant else None}

    @router.get("/requests")
    def requests(staff_id: StaffId) -> list[dict[str, Any]]:
        """Return the requests that wait for a second person."""
        return [_request(request) for request in gate.pending(staff_id)]

    @router.post("/requests/{request_id}/approve")
    def approve(staff_id: StaffId, request_id: str, _: Empty) -> dict[str, Any]:
        """Approve somebody else's request, as second person."""
        return _grant(gate.approve(staff_id, request_id))

    @router.get("/requests/{request_id}/grant")
    def grant_of(staff_id: StaffId, request_id: str) -> dict[str, Any]:
        """Return the grant that a request of one's own led to."""
        return _grant(gate.grant_of(staff_id, request_id))

    @router.get("/grants")
    def grants(staff_id: StaffId) -> list[dict[str, Any]]:
        """Return one's own grants that hold."""
        return [_grant(grant) for grant in gate.grants(staff_id)]

    @router.post("/grants/{grant_id}/revoke")
    def revoke(staff_id: StaffId, grant_id: str, _: Empty) -> dict[str, Any]:
        """End a grant: one's own, or anybody's."""
        gate.revoke_grant(staff_id, grant_id)
        return {}

    return router


# --- output ---


def _incident(incident: access.Incident) -> dict[str, Any]:
    return {
        "incident_id": incident.id,
        "purpose": incident.purpose,
        "reference": incident.reference,
        "opened_by": incident.opened_by,
        "opened_at": incident.opened_at,
        "closed_at": incident.closed_at,
    }


def _request(request: access.Request) -> dict[str, Any]:
    return {
        "request_id": request.id,
        "staff_id": request.staff_id,
        "incident_id": request.incident_id,
        "cameras": sorted(str(camera) for camera in request.cameras),
        "start": request.span.start,
        "end": request.span.end,
        "mode": request.mode,
    }


def _grant(grant: access.Grant) -> dict[str, Any]:
    return {
        "grant_id": grant.id,
        "request_id": grant.request.id,
        "staff_id": grant.request.staff_id,
        "mode": grant.request.mode,
        "expires_at": grant.expires_at,
        "second_person": grant.second_person,
    }


def _on_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VideostoreError)
    body = {"error": type(error).__name__, "message": str(error), "hint": error.hint}
    if isinstance(error, AccessRefused):
        body["reason"] = error.reason
    if isinstance(error, FootageDeleted):
        body["certificate"] = error.certificate
    if error.http_status >= 500:
        log.error("request.failed", error=str(error), kind=type(error).__name__)
    return JSONResponse(body, status_code=error.http_status)


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _on_error(request, RequestInvalid(f"{place}: {first['msg']}", hint="Correct the request."))


def _on_unread(_: Request, error: Exception) -> JSONResponse:
    """Say it as everything else is said: no such path or method, or a body that is no JSON."""
    assert isinstance(error, HTTPException)
    body = {"error": RequestInvalid.__name__, "message": error.detail, "hint": "Correct the request."}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


class _Measured:
    """ASGI middleware: how long a route took to begin its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()

        async def send_measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                telemetry.GATE_REQUEST_SECONDS.labels(route=route, status=str(message["status"])).observe(
                    time.perf_counter() - began
                )
            await send(message)

        await self._app(scope, receive, send_measured)


_NO_TELEMETRY = TelemetryConfig(
    tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False
)
"""What a person asks for goes to the ledger, and not to whatever collector the environment names."""
