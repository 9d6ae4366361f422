"""What every route reads: who asks, which cameras, which span."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from videostore.domain.camera import Camera
from videostore.domain.errors import CameraUnknown, NotLoggedIn, RequestInvalid
from videostore.domain.segment import Span
from videostore.gate.service import Gate

Cameras = Callable[[str], Camera]
"""Finds a camera by name or UUID. Raises CameraUnknown."""


Moment = Annotated[
    AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC))
]
"""A time that can be reckoned with: the calendar does not end a few days before or after it."""


class Body(BaseModel):
    """What comes in has no fields that nobody asked for."""

    model_config = ConfigDict(extra="forbid")


class Empty(Body):
    """A body that says nothing."""


SESSION_COOKIE = "__Host-videostore"
"""A browser's token. It counts only where the browser says that a page of the gate itself asks."""


def bearer_token(request: Request) -> str:
    """Return the token that came with a request. Raises NotLoggedIn."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if not token and request.headers.get("sec-fetch-site") == "same-origin":
        scheme, token = "bearer", request.cookies.get(SESSION_COOKIE, "")
    if scheme.lower() != "bearer" or not token:
        raise NotLoggedIn("you are not logged in", hint="videostore login STAFF_ID")
    return token


def _staff(request: Request) -> str:
    gate: Gate = request.app.state.gate
    return gate.entrance.staff_id(bearer_token(request))


StaffId = Annotated[str, Depends(_staff)]


def read_span(start: datetime, end: datetime) -> Span:
    """Raises RequestInvalid if it is none."""
    try:
        return Span(start.astimezone(UTC), end.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise RequestInvalid(
            "the span ends before it starts", hint="Give --from and --to in order."
        ) from error


def find(gate: Gate, staff_id: str, find_camera: Cameras, name: str) -> Camera:
    """Only who may see footage learns which cameras there are."""
    try:
        return find_camera(name)
    except CameraUnknown:
        gate.require_right(staff_id, "find-camera")
        raise


def find_all(gate: Gate, staff_id: str, find_camera: Cameras, names: list[str]) -> list[Camera]:
    """Return several cameras, as ``find`` does."""
    return [find(gate, staff_id, find_camera, name) for name in names]
