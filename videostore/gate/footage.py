"""Footage leaves the store for people here: opened in memory, a segment at a time, after its record.

Nothing leaves before its record is durable in the ledger. The rules are asked for every segment.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from videostore import telemetry
from videostore.domain import cmaf
from videostore.domain.access import Decision, Grant, Mode, Reason
from videostore.domain.camera import CameraId
from videostore.domain.errors import (
    CameraStreamInvalid,
    IntegrityError,
    KeyDestroyed,
    ObjectMissing,
    RequestInvalid,
)
from videostore.domain.ledger import Event, Json
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import MICROSECOND, Segment, Span
from videostore.gate.rules import Rules
from videostore.ports import Catalogue, Keyring, Ledger, SegmentStore

log = telemetry.logger("gate")

GAP = timedelta(milliseconds=500)
"""A hole beyond this stays a hole in what is played; less is jitter."""


@dataclass(slots=True)
class Serving:
    """One viewing or export under a grant: what may leave, and what has left."""

    id: str
    staff_id: str
    grant: Grant
    camera_id: CameraId
    segments: list[Segment]
    served: list[str] = field(default_factory=list)
    frames: int = 0
    size_bytes: int = 0

    @property
    def mode(self) -> Mode:
        return self.grant.request.mode

    def part(self, index: int) -> Span:
        """Return the granted part of a segment's span."""
        part = self.segments[index].span.intersection(self.grant.request.span)
        assert part is not None
        return part


@dataclass(frozen=True, slots=True)
class Piece:
    """One opened segment, cut to the grant. ``start`` is the time of its first frame."""

    init: bytes
    fragments: list[cmaf.Fragment]
    timescale: int
    start: datetime


class Footage:
    """Serves viewings and exports. Safe to share between threads."""

    def __init__(
        self,
        rules: Rules,
        *,
        ledger: Ledger,
        store: SegmentStore,
        catalogue: Catalogue,
        keyring: Keyring,
        retention: Callable[[], RetentionPolicy],
    ) -> None:
        self._rules = rules
        self._ledger = ledger
        self._store = store
        self._catalogue = catalogue
        self._keyring = keyring
        self._retention = retention
        self._servings: dict[str, Serving] = {}

    def begin(self, staff_id: str, grant_id: str, camera_id: CameraId, mode: Mode) -> Serving:
        """Begin a viewing or an export of one camera under a grant, and record it."""
        grant = self._rules.book().grants.get(grant_id)
        span = (
            grant.request.span if grant else Span(self._rules.now(), self._rules.now() + timedelta(seconds=1))
        )
        decision = self._rules.may_leave(staff_id, grant, mode, camera_id, span)
        self._rules.check(staff_id, mode.value, decision, grant_id=grant_id, camera_id=str(camera_id))
        assert grant is not None
        serving = Serving(
            id=secrets.token_hex(16),
            staff_id=staff_id,
            grant=grant,
            camera_id=camera_id,
            segments=self._catalogue.segments([camera_id], span),
        )
        self._record_begin(serving)
        self._forget_ended()
        self._servings[serving.id] = serving
        return serving

    def serving(self, staff_id: str, serving_id: str) -> Serving:
        """Return a viewing or export that this person began. Raises AccessRefused for any other."""
        serving = self._servings.get(serving_id)
        if serving is None or serving.staff_id != staff_id:
            self._rules.check(staff_id, "serve", Decision(Reason.GRANT_UNKNOWN), serving_id=serving_id)
        assert serving is not None
        return serving

    def piece(self, serving: Serving, index: int) -> Piece:
        """Open one segment of a serving, in memory. The rules are asked first.

        Raises AccessRefused, KeyDestroyed or ObjectMissing (retention was there), IntegrityError, SealBroken.
        """
        if not 0 <= index < len(serving.segments):
            raise RequestInvalid(f"there is no part {index}", hint="The playlist names the parts.")
        segment, part = serving.segments[index], serving.part(index)
        grant = self._rules.book().grants.get(serving.grant.id)
        decision = self._rules.may_leave(serving.staff_id, grant, serving.mode, serving.camera_id, part)
        self._rules.check(serving.staff_id, serving.mode.value, decision, grant_id=serving.grant.id)
        sealed = self._store.get(segment.object_key)
        if hashlib.sha256(sealed).hexdigest() != segment.sha256:
            raise IntegrityError(
                f"{segment.object_key} does not hold the bytes that were recorded",
                hint="Tell the operator: `videostore check`.",
            )
        movie = cmaf.parse(self._keyring.open(segment.key_id, sealed))
        kept = [
            fragment
            for fragment in movie.fragments
            if part.contains(_span_of(fragment, segment.span.start, movie.timescale))
        ]
        start = _span_of(kept[0], segment.span.start, movie.timescale).start if kept else part.start
        return Piece(movie.init, kept, movie.timescale, start)

    def movie(self, serving: Serving) -> Iterator[bytes]:
        """Yield one fragmented MP4 of everything granted, a segment at a time; holes stay holes.

        The rules are asked for every segment. What really left is recorded when it ends, however it ends.
        """
        line: _Line | None = None
        try:
            for index, segment in enumerate(serving.segments):
                try:
                    piece = self.piece(serving, index)
                except (KeyDestroyed, ObjectMissing) as error:
                    log.info("segment.gone", object_key=segment.object_key, error=str(error))
                    continue
                if not piece.fragments:
                    continue
                if line is None:
                    line = _Line(piece)
                    yield piece.init
                yield line.follow(piece)
                self._count(serving, index, piece)
        finally:
            self._record_served(serving)

    def media(self, serving: Serving, index: int) -> bytes:
        """Return one part for a player: fragments placed on the time line of the whole serving."""
        piece = self.piece(serving, index)
        offset = int((piece.start - serving.part(0).start).total_seconds() * piece.timescale)
        out = b""
        for number, fragment in enumerate(piece.fragments, start=1):
            out += fragment.moved(start=offset, number=number).data
            offset += fragment.duration
        self._count(serving, index, piece)
        self._record_served(serving, only=index)
        return out

    def delete_by(self, serving: Serving) -> datetime | None:
        """Return when the first of this footage must be gone everywhere, copies included."""
        policy = self._retention()
        return min((policy.deadline(segment.key_id) for segment in serving.segments), default=None)

    def _forget_ended(self) -> None:
        now = self._rules.now()
        for serving_id, serving in list(self._servings.items()):
            if now >= serving.grant.expires_at:
                self._servings.pop(serving_id, None)

    def _record_begin(self, serving: Serving) -> None:
        event, counter = (
            (Event.VIEWING, telemetry.GATE_VIEWINGS)
            if serving.mode is Mode.VIEW
            else (Event.EXPORT, telemetry.GATE_EXPORTS)
        )
        body: dict[str, Json] = {
            "grant_id": serving.grant.id,
            "serving_id": serving.id,
            "camera_id": str(serving.camera_id),
            "segments": len(serving.segments),
        }
        self._ledger.append(event, actor=serving.staff_id, body=body)
        counter.inc()

    def _count(self, serving: Serving, index: int, piece: Piece) -> None:
        serving.served.append(serving.segments[index].sha256)
        serving.frames += sum(fragment.frames for fragment in piece.fragments)
        serving.size_bytes += sum(len(fragment.data) for fragment in piece.fragments)
        telemetry.GATE_SEGMENTS_SERVED.labels(mode=serving.mode.value).inc()

    def _record_served(self, serving: Serving, *, only: int | None = None) -> None:
        hashes = serving.served if only is None else serving.served[-1:]
        digest = hashlib.sha256("".join(f"{line}\n" for line in hashes).encode()).hexdigest()
        body: dict[str, Json] = {
            "grant_id": serving.grant.id,
            "serving_id": serving.id,
            "segments": len(hashes),
            "segments_sha256": digest,
            "frames": serving.frames,
            "part": only,
        }
        self._ledger.append(Event.SERVED, actor=serving.staff_id, body=body)


class _Line:
    """The time line of one movie: pieces back to back, except where footage is missing."""

    def __init__(self, first: Piece) -> None:
        self._init, self._timescale, self._origin = first.init, first.timescale, first.start
        self._end = 0
        self._number = 0

    def follow(self, piece: Piece) -> bytes:
        if piece.init != self._init:
            raise CameraStreamInvalid(
                f"the picture changes its format at {piece.start.isoformat()}",
                hint="Ask for the footage before and after that time separately.",
            )
        at = int((piece.start - self._origin).total_seconds() * self._timescale)
        if at - self._end > GAP.total_seconds() * self._timescale:
            self._end = at
        out = b""
        for fragment in piece.fragments:
            self._number += 1
            out += fragment.moved(start=self._end, number=self._number).data
            self._end += fragment.duration
        return out


def _span_of(fragment: cmaf.Fragment, start: datetime, timescale: int) -> Span:
    """Round down, as the recorder did: the last fragment ends exactly where its segment ends."""
    first, end = (
        start + ticks * 1_000_000 // timescale * MICROSECOND
        for ticks in (fragment.start, fragment.start + max(1, fragment.duration))
    )
    return Span(first, max(end, first + MICROSECOND))
