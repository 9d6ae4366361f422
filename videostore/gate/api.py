"""HTTP of the gate, version 1. Thin: each route reads its input, asks the Gate, writes the answer.

Every route but ``/v1/login`` and ``/healthz`` needs ``Authorization: Bearer TOKEN``. Times are ISO 8601
with a zone. Errors are ``{"error", "message", "reason", "hint"}`` with the status of their class.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from videostore import telemetry
from videostore.domain import access
from videostore.domain.access import Mode, Purpose
from videostore.domain.camera import Camera
from videostore.domain.errors import (
    AccessRefused,
    CameraUnknown,
    NotLoggedIn,
    RequestInvalid,
    VideostoreError,
)
from videostore.domain.segment import Span
from videostore.gate.service import Gate, Serving

log = telemetry.logger("gate")

Cameras = Callable[[str], Camera]
"""Finds a camera by name or UUID. Raises CameraUnknown."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoginBody(_Body):
    staff_id: str = Field(max_length=200)
    password: str = Field(max_length=1000)


class IncidentBody(_Body):
    purpose: Purpose
    reference: str


class RequestBody(_Body):
    incident_id: str
    cameras: list[str] = Field(min_length=1, max_length=1000)
    start: AwareDatetime
    end: AwareDatetime
    mode: Mode = Mode.VIEW


class SearchBody(_Body):
    incident_id: str
    cameras: list[str] = Field(max_length=1000)
    start: AwareDatetime
    end: AwareDatetime


class ServeBody(_Body):
    camera: str


class PresenceBody(_Body):
    incident_id: str
    at: AwareDatetime


class Empty(_Body):
    pass


def create_api(gate: Gate, *, find_camera: Cameras, all_cameras: Callable[[], list[Camera]]) -> FastAPI:
    """Return the application. ``find_camera`` and ``all_cameras`` follow the site's list."""
    api = FastAPI(title="videostore gate", docs_url=None, redoc_url=None, openapi_url=None)
    api.add_exception_handler(VideostoreError, _on_error)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.middleware("http")(_measure)
    api.state.gate = gate

    @api.get("/healthz")
    def healthz() -> dict[str, bool]:
        return {"ok": True}

    @api.post("/v1/login")
    def login(body: LoginBody, request: Request) -> dict[str, Any]:
        address = request.client.host if request.client else ""
        token, begun = gate.login(body.staff_id, body.password, address=address)
        return {"token": token, "staff_id": begun.staff_id, "ends_at": begun.ends_at}

    api.include_router(_people(gate))
    api.include_router(_cases(gate, find_camera, all_cameras))
    api.include_router(_grants(gate, find_camera))
    api.include_router(_footage(gate, find_camera))
    return api


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotLoggedIn("you are not logged in", hint="videostore login STAFF_ID")
    return token


def _staff(request: Request) -> str:
    gate: Gate = request.app.state.gate
    return gate.staff_id(_token(request))


StaffId = Annotated[str, Depends(_staff)]


def _people(gate: Gate) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/logout")
    def logout(request: Request, _: StaffId, __: Empty) -> dict[str, Any]:
        gate.logout(_token(request))
        return {}

    @router.get("/whoami")
    def whoami(staff_id: StaffId) -> dict[str, Any]:
        decision = gate.right(staff_id)
        return {"staff_id": staff_id, "may_see_footage": decision.allowed, "reason": decision.reason.value}

    return router


def _cases(gate: Gate, find_camera: Cameras, all_cameras: Callable[[], list[Camera]]) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/incidents")
    def open_incident(staff_id: StaffId, body: IncidentBody) -> dict[str, Any]:
        return _incident(gate.open_incident(staff_id, body.purpose, body.reference))

    @router.get("/incidents")
    def incidents(staff_id: StaffId) -> list[dict[str, Any]]:
        return [_incident(incident) for incident in gate.incidents(staff_id)]

    @router.post("/incidents/{incident_id}/close")
    def close_incident(staff_id: StaffId, incident_id: str, _: Empty) -> dict[str, Any]:
        return _incident(gate.close_incident(staff_id, incident_id))

    @router.post("/search")
    def search(staff_id: StaffId, body: SearchBody) -> list[dict[str, Any]]:
        cameras = _find_all(gate, staff_id, find_camera, body.cameras) or all_cameras()
        names = {camera.id: camera.name for camera in cameras}
        segments, gaps = gate.search(staff_id, body.incident_id, list(names), _span(body.start, body.end))
        rows = [("footage", one.camera_id, one.span, "") for one in segments]
        rows += [("gap", one.camera_id, one.span, one.reason.value) for one in gaps]
        return [
            {"camera": names[camera], "camera_id": camera, "kind": kind, "start": span.start, "end": span.end,
             "reason": reason}
            for kind, camera, span, reason in sorted(rows, key=lambda row: (names[row[1]], row[2]))
        ]  # fmt: skip

    @router.post("/presence")
    def presence(staff_id: StaffId, body: PresenceBody) -> list[dict[str, Any]]:
        inside = gate.on_premises(staff_id, body.incident_id, body.at.astimezone(UTC))
        return [{"badge": one.badge, "door": one.door, "since": one.read_at} for one in inside]

    return router


def _grants(gate: Gate, find_camera: Cameras) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/requests")
    def request_footage(staff_id: StaffId, body: RequestBody) -> dict[str, Any]:
        cameras = [camera.id for camera in _find_all(gate, staff_id, find_camera, body.cameras)]
        asked, grant = gate.request(
            staff_id, body.incident_id, cameras, _span(body.start, body.end), body.mode
        )
        return {**_request(asked), "grant": _grant(grant) if grant else None}

    @router.get("/requests")
    def requests(staff_id: StaffId) -> list[dict[str, Any]]:
        return [_request(request) for request in gate.pending(staff_id)]

    @router.post("/requests/{request_id}/approve")
    def approve(staff_id: StaffId, request_id: str, _: Empty) -> dict[str, Any]:
        return _grant(gate.approve(staff_id, request_id))

    @router.get("/requests/{request_id}/grant")
    def grant_of(staff_id: StaffId, request_id: str) -> dict[str, Any]:
        return _grant(gate.grant_of(staff_id, request_id))

    @router.post("/grants/{grant_id}/revoke")
    def revoke(staff_id: StaffId, grant_id: str, _: Empty) -> dict[str, Any]:
        gate.revoke_grant(staff_id, grant_id)
        return {}

    return router


def _footage(gate: Gate, find_camera: Cameras) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/grants/{grant_id}/viewings")
    def begin_viewing(staff_id: StaffId, grant_id: str, body: ServeBody) -> dict[str, Any]:
        camera = _find(gate, staff_id, find_camera, body.camera)
        return _serving(gate, gate.begin(staff_id, grant_id, camera.id, Mode.VIEW), camera)

    @router.post("/grants/{grant_id}/exports")
    def begin_export(staff_id: StaffId, grant_id: str, body: ServeBody) -> dict[str, Any]:
        camera = _find(gate, staff_id, find_camera, body.camera)
        return _serving(gate, gate.begin(staff_id, grant_id, camera.id, Mode.EXPORT), camera)

    @router.post("/servings/{serving_id}/movie")
    def movie(staff_id: StaffId, serving_id: str, _: Empty) -> Response:
        chunks = gate.movie(gate.serving(staff_id, serving_id))
        first = next(chunks, None)  # so that a refusal is an answer, and not a broken stream
        if first is None:
            raise RequestInvalid(
                "there is no footage in that span", hint="`videostore search` shows what is."
            )
        return StreamingResponse(_closing(first, chunks), media_type="video/mp4", headers=_PRIVATE)

    @router.get("/servings/{serving_id}/index.m3u8")
    def playlist(staff_id: StaffId, serving_id: str) -> Response:
        text = _playlist(gate.serving(staff_id, serving_id))
        return Response(text, media_type="application/vnd.apple.mpegurl", headers=_PRIVATE)

    @router.get("/servings/{serving_id}/{index}.init.mp4")
    def init(staff_id: StaffId, serving_id: str, index: int) -> Response:
        data = gate.piece(gate.serving(staff_id, serving_id), index).init
        return Response(data, media_type="video/mp4", headers=_PRIVATE)

    @router.get("/servings/{serving_id}/{index}.m4s")
    def media(staff_id: StaffId, serving_id: str, index: int) -> Response:
        data = gate.media(gate.serving(staff_id, serving_id), index)
        return Response(data, media_type="video/iso.segment", headers=_PRIVATE)

    return router


_PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _closing(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chain([first], chunks)
    finally:
        chunks.close()  # type: ignore[attr-defined]  # a generator: it records what left


def _playlist(serving: Serving) -> str:
    """HLS (RFC 8216): every part with its own init, so that a change of format is only a discontinuity."""
    parts = [serving.part(index) for index in range(len(serving.segments))]
    longest = max((part.duration.total_seconds() for part in parts), default=1.0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{int(longest) + 1}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
    ]
    for index, part in enumerate(parts):
        lines += [
            *(["#EXT-X-DISCONTINUITY"] if index else []),
            f'#EXT-X-MAP:URI="{index}.init.mp4"',
            f"#EXT-X-PROGRAM-DATE-TIME:{part.start.isoformat(timespec='milliseconds')}",
            f"#EXTINF:{part.duration.total_seconds():.6f},",
            f"{index}.m4s",
        ]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


# --- input ---


def _span(start: datetime, end: datetime) -> Span:
    try:
        return Span(start.astimezone(UTC), end.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise RequestInvalid(
            "the span ends before it starts", hint="Give --from and --to in order."
        ) from error


def _find(gate: Gate, staff_id: str, find_camera: Cameras, name: str) -> Camera:
    """Only who may see footage learns which cameras there are."""
    try:
        return find_camera(name)
    except CameraUnknown:
        gate.require_right(staff_id, "find-camera")
        raise


def _find_all(gate: Gate, staff_id: str, find_camera: Cameras, names: list[str]) -> list[Camera]:
    return [_find(gate, staff_id, find_camera, name) for name in names]


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


def _serving(gate: Gate, serving: Serving, camera: Camera) -> dict[str, Any]:
    parts = [serving.part(index) for index in range(len(serving.segments))]
    return {
        "serving_id": serving.id,
        "grant_id": serving.grant.id,
        "incident_id": serving.grant.request.incident_id,
        "camera": camera.name,
        "camera_id": camera.id,
        "playlist": f"/v1/servings/{serving.id}/index.m3u8",
        "delete_by": gate.delete_by(serving),
        "parts": [
            {"start": part.start, "end": part.end, "object_key": segment.object_key, "sha256": segment.sha256}
            for part, segment in zip(parts, serving.segments, strict=True)
        ],
    }


def _on_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VideostoreError)
    body = {"error": type(error).__name__, "message": str(error), "hint": error.hint}
    if isinstance(error, AccessRefused):
        body["reason"] = error.reason
    if error.http_status >= 500:
        log.error("request.failed", error=str(error), kind=type(error).__name__)
    return JSONResponse(body, status_code=error.http_status)


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _on_error(request, RequestInvalid(f"{place}: {first['msg']}", hint="Correct the request."))


async def _measure(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    began = time.perf_counter()
    response = await call(request)
    route = getattr(request.scope.get("route"), "path", "none")
    telemetry.GATE_REQUEST_SECONDS.labels(route=route, status=str(response.status_code)).observe(
        time.perf_counter() - began
    )
    return response
