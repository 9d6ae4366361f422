"""Routes of footage: search, playlists and their parts, films. Thin, as in ``gate.api``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from videostore.domain.access import Mode
from videostore.domain.camera import Camera
from videostore.gate.footage import Serving
from videostore.gate.inputs import (
    Body,
    Cameras,
    Empty,
    Moment,
    StaffId,
    bearer_token,
    find,
    find_all,
    read_span,
)
from videostore.gate.lanes import Lane
from videostore.gate.playlist import media_playlist, variant_playlist
from videostore.gate.search import Found
from videostore.gate.service import Gate

_PICTURES_AT_ONCE = 2
"""A contact sheet opens and decodes a hundred segments."""


class SearchBody(Body):
    incident_id: str
    cameras: list[str] = Field(default=[], max_length=1000)
    group: str = Field(default="", max_length=100)
    place: str = Field(default="", max_length=100)
    start: Moment
    end: Moment


class ServeBody(Body):
    camera: str


class ExportBody(ServeBody):
    viewing_copy: bool = False


class SnapshotBody(Body):
    at: Moment


class SheetBody(Body):
    columns: int = Field(default=4, ge=1, le=10)
    rows: int = Field(default=4, ge=1, le=10)


class FilmBody(Body):
    offset: int = Field(default=0, ge=0)


def _own(request: Request, staff_id: StaffId, serving_id: str) -> Serving:
    gate: Gate = request.app.state.gate
    return gate.footage.serving(staff_id, serving_id)


def _of_player(request: Request, player: str) -> Serving:
    gate: Gate = request.app.state.gate
    return gate.serving_of_player(player)


OwnServing = Annotated[Serving, Depends(_own)]
PlayerServing = Annotated[Serving, Depends(_of_player)]


def search_routes(gate: Gate, find_camera: Cameras, all_cameras: Callable[[], list[Camera]]) -> APIRouter:
    """Return the routes that say which footage there is."""
    router = APIRouter(prefix="/v1")

    @router.post("/search")
    def search(staff_id: StaffId, body: SearchBody) -> list[dict[str, Any]]:
        """Say of every second whether there is footage, and why not; of all cameras unless some are named."""
        cameras = find_all(gate, staff_id, find_camera, body.cameras) or [
            camera
            for camera in all_cameras()
            if body.group in {"", camera.group} and body.place.casefold() in camera.place.casefold()
        ]
        known = {camera.id: camera for camera in sorted(cameras, key=lambda camera: camera.name)}
        found = gate.search.find(staff_id, body.incident_id, list(known), read_span(body.start, body.end))
        return [_found(known[one.camera_id], one) for one in found]

    return router


def footage_routes(gate: Gate, find_camera: Cameras) -> APIRouter:
    """Return the routes that footage leaves by."""
    router = APIRouter(prefix="/v1")

    @router.post("/grants/{grant_id}/viewings")
    def begin_viewing(staff_id: StaffId, grant_id: str, body: ServeBody) -> dict[str, Any]:
        """Begin to view one camera of a grant."""
        camera = find(gate, staff_id, find_camera, body.camera)
        return _serving(gate, gate.footage.begin(staff_id, grant_id, camera.id, Mode.VIEW), camera)

    @router.post("/grants/{grant_id}/exports")
    def begin_export(staff_id: StaffId, grant_id: str, body: ExportBody) -> dict[str, Any]:
        """Begin to export one camera of a grant: as it was recorded, or as a viewing copy."""
        camera = find(gate, staff_id, find_camera, body.camera)
        serving = gate.footage.begin(
            staff_id, grant_id, camera.id, Mode.EXPORT, viewing_copy=body.viewing_copy
        )
        return _serving(gate, serving, camera)

    return router


def export_routes(gate: Gate, find_camera: Cameras) -> APIRouter:
    """Return the routes of exports: films, and the manifest when the last of them was fetched."""
    router = APIRouter(prefix="/v1")

    @router.post("/servings/{serving_id}/films/{number}")
    def film(serving: OwnServing, number: int, body: FilmBody, request: Request) -> Response:
        """Return one film of an export, from ``offset`` (bytes) on. They are made in order."""
        camera, token = find_camera(str(serving.camera_id)), bearer_token(request)
        chunks = gate.exports.film(
            serving, camera, number, offset=body.offset, person=lambda: gate.entrance.staff_id(token)
        )
        first = next(chunks, b"")  # so that a refusal is an answer, and not a broken stream
        return StreamingResponse(_closing(first, chunks), media_type="video/mp4", headers=_PRIVATE)

    @router.get("/servings/{serving_id}/films")
    def films(serving: OwnServing) -> list[int]:
        """Return the numbers of the films that are known so far."""
        return list(range(gate.exports.films(serving)))

    @router.get("/servings/{serving_id}/manifest")
    def manifest(serving: OwnServing) -> dict[str, Any]:
        """Return the signed manifest, when every film was fetched."""
        return gate.exports.manifest(serving, find_camera(str(serving.camera_id)))

    return router


def playlist_routes(gate: Gate) -> APIRouter:
    """Return the routes of players that log in: a playlist, and its parts."""
    router = APIRouter(prefix="/v1")

    @router.get("/servings/{serving_id}/index.m3u8")
    def index(serving: OwnServing) -> Response:
        """Return the HLS playlist; it grows while the viewing is live."""
        return _playlist(gate, serving)

    @router.get("/servings/{serving_id}/{index}.init.mp4")
    def init(serving: OwnServing, index: int, request: Request) -> Response:
        """Return the init (``ftyp moov``) of a part. Byte ranges are answered with 206 or 416."""
        return _ranged(request, gate.footage.init(serving, index), "video/mp4")

    @router.get("/servings/{serving_id}/{index}.m4s")
    def media(serving: OwnServing, index: int, request: Request) -> Response:
        """Return the fragments of a part. Byte ranges are answered with 206 or 416."""
        return _ranged(request, gate.footage.media(serving, index), "video/iso.segment")

    return router


def picture_routes(gate: Gate) -> APIRouter:
    """Return the routes of single pictures."""
    router = APIRouter(prefix="/v1")
    decoding = Lane("pictures", threads=_PICTURES_AT_ONCE)

    @router.post("/servings/{serving_id}/snapshot")
    async def snapshot(serving: OwnServing, body: SnapshotBody) -> Response:
        """Return the picture of a moment as JPEG; ``X-Captured-At`` says when it was captured."""
        picture, at = await decoding.run(gate.pictures.snapshot, serving, body.at.astimezone(UTC))
        headers = {**_PRIVATE, "X-Captured-At": at.isoformat()}
        return Response(picture, media_type="image/jpeg", headers=headers)

    @router.post("/servings/{serving_id}/sheet")
    async def sheet(serving: OwnServing, body: SheetBody) -> Response:
        """Return a contact sheet as JPEG."""
        picture = await decoding.run(gate.pictures.sheet, serving, columns=body.columns, rows=body.rows)
        return Response(picture, media_type="image/jpeg", headers=_PRIVATE)

    return router


def ticket_routes(gate: Gate) -> APIRouter:
    """Return the routes of players that cannot log in: a ticket for one's own serving is in the address."""
    router = APIRouter(prefix="/v1")

    @router.post("/servings/{serving_id}/ticket")
    def ticket(serving: OwnServing, request: Request, _: Empty) -> dict[str, Any]:
        """Issue an address for a player that cannot log in. It opens once."""
        secret, issued = gate.issue_ticket(serving, bearer_token(request))
        return {"path": f"/v1/tickets/{secret}/index.m3u8", "use_by": issued.use_by}

    @router.get("/tickets/{ticket}/index.m3u8")
    def change(ticket: str, request: Request) -> Response:
        """Change a ticket for a playlist whose address only this player knows."""
        address = request.client.host if request.client else ""
        secret, serving = gate.change_ticket(ticket, address=address)
        return _hls(variant_playlist(serving, f"/v1/players/{secret}/index.m3u8"))

    @router.get("/players/{player}/index.m3u8")
    def index(serving: PlayerServing, request: Request) -> Response:
        """As the playlist of a serving."""
        return _playlist(gate, serving, joined=_ENDS_AT_HOLES in request.headers.get("user-agent", ""))

    @router.get("/players/{player}/{index}.init.mp4")
    def init(serving: PlayerServing, index: int, request: Request) -> Response:
        """As the init of a serving."""
        return _ranged(request, gate.footage.init(serving, index), "video/mp4")

    @router.get("/players/{player}/{index}.m4s")
    def media(serving: PlayerServing, index: int, request: Request) -> Response:
        """As the fragments of a serving."""
        return _ranged(request, gate.footage.media(serving, index), "video/iso.segment")

    return router


_PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_ENDS_AT_HOLES = "LibVLC/3."
"""It begins a new decoder behind a discontinuity, and gives it no init."""
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def _playlist(gate: Gate, serving: Serving, *, joined: bool = False) -> Response:
    gaps, more = gate.footage.follow(serving)
    return _hls(media_playlist(serving, gaps, more=more, joined=joined))


def _hls(text: str) -> Response:
    return Response(text, media_type="application/vnd.apple.mpegurl", headers=_PRIVATE)


def _ranged(request: Request, data: bytes, media_type: str) -> Response:
    """Answer with the one range that was asked for, else with all (RFC 9110, section 14)."""
    headers = {**_PRIVATE, "Accept-Ranges": "bytes"}
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or asked[0] == "bytes=-":
        return Response(data, media_type=media_type, headers=headers)
    first, last = (int(one) if one else None for one in asked.groups())
    if first is None:
        first, last = max(0, len(data) - (last or 0)), None
    end = len(data) if last is None else min(last + 1, len(data))
    if first >= end:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
    return Response(data[first:end], status_code=206, media_type=media_type, headers=headers)


def _closing(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chain([first], chunks)
    finally:
        chunks.close()  # type: ignore[attr-defined]  # a generator: it records what left


def _found(camera: Camera, one: Found) -> dict[str, Any]:
    stretch = one.stretch
    return {
        "camera": camera.name,
        "camera_id": camera.id,
        "group": camera.group,
        "place": camera.place,
        "kind": stretch.state.value,
        "start": stretch.span.start,
        "end": stretch.span.end,
        "reason": stretch.detail,
        "why": one.why,
        "granted": one.granted,
    }


def _serving(gate: Gate, serving: Serving, camera: Camera) -> dict[str, Any]:
    return {
        "serving_id": serving.id,
        "grant_id": serving.grant.id,
        "incident_id": serving.grant.request.incident_id,
        "camera": camera.name,
        "camera_id": camera.id,
        "playlist": f"/v1/servings/{serving.id}/index.m3u8",
        "live": serving.live,
        "viewing_copy": serving.viewing_copy,
        "delete_by": gate.footage.delete_by(serving),
        "parts": [
            {
                "start": part.span.start,
                "size_bytes": part.segment.size_bytes,
                "end": part.span.end,
                "object_key": part.segment.object_key,
                "sha256": part.segment.sha256,
            }
            for part in serving.parts
        ],
    }
