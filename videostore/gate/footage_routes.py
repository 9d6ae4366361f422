"""Routes of footage: search, playlists and their parts, films. Thin, as in ``gate.api``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, Field

from videostore.domain.access import Mode
from videostore.domain.camera import Camera
from videostore.domain.errors import RequestInvalid
from videostore.gate.footage import Serving
from videostore.gate.inputs import Body, Cameras, Empty, StaffId, find, find_all, read_span
from videostore.gate.playlist import playlist
from videostore.gate.service import Gate


class SearchBody(Body):
    incident_id: str
    cameras: list[str] = Field(max_length=1000)
    start: AwareDatetime
    end: AwareDatetime


class ServeBody(Body):
    camera: str


def search_routes(gate: Gate, find_camera: Cameras, all_cameras: Callable[[], list[Camera]]) -> APIRouter:
    """Return the routes that say which footage there is."""
    router = APIRouter(prefix="/v1")

    @router.post("/search")
    def search(staff_id: StaffId, body: SearchBody) -> list[dict[str, Any]]:
        cameras = find_all(gate, staff_id, find_camera, body.cameras) or all_cameras()
        names = {camera.id: camera.name for camera in cameras}
        segments, gaps = gate.search.find(
            staff_id, body.incident_id, list(names), read_span(body.start, body.end)
        )
        rows = [("footage", one.camera_id, one.span, "") for one in segments]
        rows += [("gap", one.camera_id, one.span, one.reason.value) for one in gaps]
        return [
            {"camera": names[camera], "camera_id": camera, "kind": kind, "start": span.start, "end": span.end,
             "reason": reason}
            for kind, camera, span, reason in sorted(rows, key=lambda row: (names[row[1]], row[2]))
        ]  # fmt: skip

    return router


def footage_routes(gate: Gate, find_camera: Cameras) -> APIRouter:
    """Return the routes that footage leaves by."""
    router = APIRouter(prefix="/v1")

    @router.post("/grants/{grant_id}/viewings")
    def begin_viewing(staff_id: StaffId, grant_id: str, body: ServeBody) -> dict[str, Any]:
        camera = find(gate, staff_id, find_camera, body.camera)
        return _serving(gate, gate.footage.begin(staff_id, grant_id, camera.id, Mode.VIEW), camera)

    @router.post("/grants/{grant_id}/exports")
    def begin_export(staff_id: StaffId, grant_id: str, body: ServeBody) -> dict[str, Any]:
        camera = find(gate, staff_id, find_camera, body.camera)
        return _serving(gate, gate.footage.begin(staff_id, grant_id, camera.id, Mode.EXPORT), camera)

    @router.post("/servings/{serving_id}/movie")
    def movie(staff_id: StaffId, serving_id: str, _: Empty) -> Response:
        chunks = gate.footage.movie(gate.footage.serving(staff_id, serving_id))
        first = next(chunks, None)  # so that a refusal is an answer, and not a broken stream
        if first is None:
            raise RequestInvalid(
                "there is no footage in that span", hint="`videostore search` shows what is."
            )
        return StreamingResponse(_closing(first, chunks), media_type="video/mp4", headers=_PRIVATE)

    @router.get("/servings/{serving_id}/index.m3u8")
    def index(staff_id: StaffId, serving_id: str) -> Response:
        text = playlist(gate.footage.serving(staff_id, serving_id))
        return Response(text, media_type="application/vnd.apple.mpegurl", headers=_PRIVATE)

    @router.get("/servings/{serving_id}/{index}.init.mp4")
    def init(staff_id: StaffId, serving_id: str, index: int) -> Response:
        data = gate.footage.piece(gate.footage.serving(staff_id, serving_id), index).init
        return Response(data, media_type="video/mp4", headers=_PRIVATE)

    @router.get("/servings/{serving_id}/{index}.m4s")
    def media(staff_id: StaffId, serving_id: str, index: int) -> Response:
        data = gate.footage.media(gate.footage.serving(staff_id, serving_id), index)
        return Response(data, media_type="video/iso.segment", headers=_PRIVATE)

    return router


_PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _closing(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chain([first], chunks)
    finally:
        chunks.close()  # type: ignore[attr-defined]  # a generator: it records what left


def _serving(gate: Gate, serving: Serving, camera: Camera) -> dict[str, Any]:
    parts = [serving.part(index) for index in range(len(serving.segments))]
    return {
        "serving_id": serving.id,
        "grant_id": serving.grant.id,
        "incident_id": serving.grant.request.incident_id,
        "camera": camera.name,
        "camera_id": camera.id,
        "playlist": f"/v1/servings/{serving.id}/index.m3u8",
        "delete_by": gate.footage.delete_by(serving),
        "parts": [
            {"start": part.start, "end": part.end, "object_key": segment.object_key, "sha256": segment.sha256}
            for part, segment in zip(parts, serving.segments, strict=True)
        ],
    }
