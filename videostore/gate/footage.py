"""Footage leaves the store for people here: opened in memory, a segment at a time, after its record.

Nothing leaves before its record is durable in the ledger. The rules are asked for every segment.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock

from videostore import telemetry
from videostore.domain import cmaf
from videostore.domain.access import Decision, Grant, Mode, Reason
from videostore.domain.camera import CameraId
from videostore.domain.errors import (
    FootageDeleted,
    IntegrityError,
    KeyDestroyed,
    ObjectMissing,
    RequestInvalid,
)
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import MICROSECOND, Gap, Segment, Span
from videostore.gate.rules import Rules
from videostore.ports import Catalogue, Keyring, Ledger, SegmentStore

GAP = timedelta(milliseconds=500)
"""A hole beyond this stays a hole in what is played; less is jitter."""
_KEPT_OPEN = timedelta(seconds=10)
"""A player that asked for the init of a segment asks for its frames within this."""


@dataclass(slots=True)
class Part:
    """A segment of a serving. ``span`` is what of it may leave; ``gone``: it turned out that nothing can."""

    segment: Segment
    span: Span
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """One opened segment, cut to the grant. ``start`` is the time of its first frame."""

    init: bytes
    fragments: list[cmaf.Fragment]
    timescale: int
    start: datetime

    @property
    def frames(self) -> int:
        return sum(fragment.frames for fragment in self.fragments)

    @property
    def audible(self) -> bool:
        return any(fragment.beside for fragment in self.fragments)

    def muted(self) -> Piece:
        movie = cmaf.Movie(self.init, self.fragments, self.timescale).muted()
        return replace(self, init=movie.init, fragments=list(movie.fragments))

    @property
    def span(self) -> Span:
        ticks = max(1, sum(fragment.duration for fragment in self.fragments))
        return Span(self.start, self.start + max(1, ticks * 1_000_000 // self.timescale) * MICROSECOND)


@dataclass(slots=True)
class Serving:
    """One viewing or export under a grant: what may leave, and what has left.

    ``live``: its span reaches beyond the time of the grant, so ``parts`` grow. ``audible``: there is sound at
    both ends of it; None until it was looked for. ``fetched``: a film of it was begun. ``viewing_copy``: an
    export that is burnt and encoded anew.
    """

    id: str
    staff_id: str
    grant: Grant
    camera_id: CameraId
    parts: list[Part] = field(default_factory=list)
    begun: Record | None = None
    opened: tuple[int, Piece, datetime] | None = None
    audible: bool | None = None
    fetched: bool = False
    viewing_copy: bool = False
    lock: Lock = field(default_factory=Lock)

    @property
    def mode(self) -> Mode:
        return self.grant.request.mode

    @property
    def live(self) -> bool:
        return self.grant.request.span.end > self.grant.granted_at

    def offset(self, index: int) -> timedelta:
        """Return where a part begins on the time line of the serving, on which holes take no time."""
        return sum((part.span.duration for part in self.parts[:index]), timedelta())


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

    def begin(
        self, staff_id: str, grant_id: str, camera_id: CameraId, mode: Mode, *, viewing_copy: bool = False
    ) -> Serving:
        """Begin a viewing or an export of one camera under a grant, and record it."""
        grant = self._rules.book().grants.get(grant_id)
        span = grant.request.span if grant else Span(self._rules.now(), self._rules.now() + GAP)
        decision = self._rules.may_leave(staff_id, grant, mode, camera_id, span)
        self._rules.check(staff_id, mode.value, decision, grant_id=grant_id, camera_id=str(camera_id))
        assert grant is not None
        serving = Serving(secrets.token_hex(16), staff_id, grant, camera_id, viewing_copy=viewing_copy)
        segments = self._catalogue.segments([camera_id], span)
        self._record_begin(serving, segments)
        self._extend(serving, segments)
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

    def knows(self, serving_id: str) -> bool:
        """Say whether a serving can still go on."""
        return serving_id in self._servings

    def follow(self, serving: Serving) -> tuple[list[Gap], bool]:
        """Take in what a live serving has got since. Returns its gaps, and whether more may come."""
        span = serving.grant.request.span
        self.ask(serving, span)
        if serving.live:
            with serving.lock:
                reached = serving.parts[-1].segment.span.end if serving.parts else span.start
                if reached < span.end:
                    new = self._catalogue.segments([serving.camera_id], Span(reached, span.end))
                    self._extend(serving, [one for one in new if one.span.start >= reached - GAP])
        more = serving.live and self._rules.now() < span.end + _LATE
        return self._catalogue.gaps([serving.camera_id], span), more

    def piece(self, serving: Serving, index: int) -> Piece:
        """Open one segment of a serving, in memory. The rules are asked first.

        Raises AccessRefused, FootageDeleted (its deadline has come), ObjectMissing (lost), IntegrityError,
        SealBroken.
        """
        if not 0 <= index < len(serving.parts):
            raise RequestInvalid(f"there is no part {index}", hint="The playlist names the parts.")
        part = serving.parts[index]
        self.ask(serving, part.span)
        opened, serving.opened = serving.opened, None
        try:
            if opened and opened[0] == index and self._rules.now() < opened[2]:
                self._keyring.recipient(part.segment.key_id)  # raises if the deadline has come meanwhile
                self._refuse_past(part.segment)
                return opened[1]
            return self._heard(serving, self._cut(part))
        except (KeyDestroyed, ObjectMissing) as error:
            part.gone = True
            raise self._gone(part.segment, error) from error

    def movie_of(self, serving: Serving, part: Part) -> cmaf.Movie:
        """Open a whole segment for an export, in memory. The rules are asked first; raises as ``piece``."""
        self.ask(serving, part.span)
        try:
            return self._open(part.segment)
        except (KeyDestroyed, ObjectMissing) as error:
            part.gone = True
            raise self._gone(part.segment, error) from error

    def init(self, serving: Serving, index: int) -> bytes:
        """Return how the frames of a part are to be decoded. No frame leaves."""
        piece = self.piece(serving, index)
        serving.opened = (index, piece, self._rules.now() + _KEPT_OPEN)
        return piece.init

    def media(self, serving: Serving, index: int) -> bytes:
        """Return one part for a player: fragments placed on the time line of the whole serving."""
        piece = self.piece(serving, index)
        ahead = serving.offset(index) + (piece.start - serving.parts[index].span.start)
        offset = ahead // MICROSECOND * piece.timescale // 1_000_000
        out = []
        for number, fragment in enumerate(piece.fragments, start=1):
            out.append(fragment.moved(start=offset, number=number).data)
            offset += fragment.duration
        spans = [piece.span] if piece.fragments else []
        self.record_served(serving, [serving.parts[index].segment], spans, piece.frames)
        return b"".join(out)

    def delete_by(self, serving: Serving) -> datetime | None:
        """Return when the first of this footage must be gone everywhere, copies included."""
        policy = self._retention()
        return min(
            (policy.deadline(one.segment.key_id, camera_id=serving.camera_id) for one in serving.parts),
            default=None,
        )

    # --- opening ---

    def ask(self, serving: Serving, span: Span) -> None:
        """Ask the rules anew, by what is on record now."""
        grant = self._rules.book().grants.get(serving.grant.id)
        decision = self._rules.may_leave(serving.staff_id, grant, serving.mode, serving.camera_id, span)
        self._rules.check(serving.staff_id, serving.mode.value, decision, grant_id=serving.grant.id)

    def _extend(self, serving: Serving, segments: Iterable[Segment]) -> None:
        """Add parts. A segment at the edge of the span is opened to see which whole fragments of it leave: a
        player is told exactly what it will get."""
        for segment in segments:
            span = segment.span.intersection(serving.grant.request.span)
            if segment.camera_id != serving.camera_id or span is None:
                raise IntegrityError(
                    f"the catalogue has rows of {serving.camera_id} in this span that are other footage",
                    hint="They were altered: `videostore check` names them, `videostore catalogue rebuild` "
                    "puts them right.",
                )
            part = Part(segment, span)
            if serving.mode is Mode.VIEW and span != segment.span:
                try:
                    piece = self._cut(part)
                except (KeyDestroyed, ObjectMissing):
                    part.gone = True
                else:
                    if not piece.fragments:
                        continue
                    part.span = piece.span
            serving.parts.append(part)

    def _heard(self, serving: Serving, piece: Piece) -> Piece:
        """No player goes over from a picture alone to one with sound, or back: where the switch of a camera
        was turned inside a serving, it is the picture that is served."""
        if not piece.audible:
            return piece
        if serving.audible is None:
            audible = True  # the serving's only when both ends are known: parts are asked for at once
            for part in (serving.parts[0], serving.parts[-1]):
                with suppress(KeyDestroyed, ObjectMissing):
                    audible &= self._cut(part).audible
            serving.audible = audible
        return piece if serving.audible else piece.muted()

    def _cut(self, part: Part) -> Piece:
        movie = self._open(part.segment)
        start = part.segment.span.start
        kept = [one for one in movie.fragments if part.span.contains(_span_of(one, start, movie.timescale))]
        first = _span_of(kept[0], start, movie.timescale).start if kept else part.span.start
        return Piece(movie.init, kept, movie.timescale, first)

    def _open(self, segment: Segment) -> cmaf.Movie:
        """Open a segment from its seal, in memory. The caller has asked the rules."""
        self._refuse_past(segment)
        sealed = self._store.get(segment.object_key)
        if hashlib.sha256(sealed).hexdigest() != segment.sha256:
            raise IntegrityError(
                f"{segment.object_key} does not hold the bytes that were recorded",
                hint="Tell the operator: `videostore check`.",
            )
        movie = cmaf.parse(self._keyring.open(segment.key_id, sealed))
        own = cmaf.origin_of(segment.camera_id, segment.span.start)
        if movie.origin not in {own, b""}:  # recorders of before said nothing
            raise IntegrityError(
                f"{segment.object_key} holds footage of another camera or time",
                hint="Tell the operator: `videostore verify segments`.",
            )
        return movie

    def _refuse_past(self, segment: Segment) -> None:
        """The key judges itself; but it may be that of cameras which are kept for longer."""
        if self._rules.now() >= self._retention().deadline(segment.key_id, camera_id=segment.camera_id):
            raise KeyDestroyed(
                f"{segment.object_key} is past its deadline", hint="It opens for nobody any more."
            )

    def _gone(self, segment: Segment, error: KeyDestroyed | ObjectMissing) -> Exception:
        """Tell lawful deletion, by its certificate, from loss."""
        certificate = self._rules.book().certificate(segment.camera_id, segment.key_id)
        if certificate or isinstance(error, KeyDestroyed):
            return FootageDeleted(segment.span.start, certificate)
        return error

    def _forget_ended(self) -> None:
        now = self._rules.now()
        for serving_id, serving in list(self._servings.items()):
            if now >= serving.grant.expires_at:
                self._servings.pop(serving_id, None)

    # --- on record ---

    def _record_begin(self, serving: Serving, segments: list[Segment]) -> None:
        event, counter = (
            (Event.VIEWING, telemetry.GATE_VIEWINGS)
            if serving.mode is Mode.VIEW
            else (Event.EXPORT, telemetry.GATE_EXPORTS)
        )
        body: dict[str, Json] = {
            "grant_id": serving.grant.id,
            "serving_id": serving.id,
            "camera_id": str(serving.camera_id),
            "segments": len(segments),
        }
        if serving.viewing_copy:
            body["viewing_copy"] = True
        serving.begun = self._ledger.append(event, actor=serving.staff_id, body=body)
        counter.inc()

    def record_fetch(self, serving: Serving) -> None:
        """Write down that a film is fetched again: the record that the serving began is of the first,
        and a ledger that takes no more records lets no more out."""
        self.ask(serving, serving.grant.request.span)
        if serving.fetched:
            self.record_served(serving, [], [], 0)
        serving.fetched = True

    def record_served(
        self, serving: Serving, segments: Sequence[Segment], spans: Iterable[Span], frames: int
    ) -> None:
        """Write down exactly what leaves: which segments, which spans of them, how many frames."""
        digest = hashlib.sha256("".join(f"{one.sha256}\n" for one in segments).encode()).hexdigest()
        body: dict[str, Json] = {
            "grant_id": serving.grant.id,
            "serving_id": serving.id,
            "camera_id": str(serving.camera_id),
            "segments": len(segments),
            "segments_sha256": digest,
            "spans": [[span.start.isoformat(), span.end.isoformat()] for span in spans],
            "frames": frames,
        }
        self._ledger.append(Event.SERVED, actor=serving.staff_id, body=body)
        telemetry.GATE_SEGMENTS_SERVED.labels(mode=serving.mode.value).inc(len(segments))


_LATE = timedelta(minutes=1)
"""A live serving waits this long beyond its end for the last segments to be uploaded."""


def _span_of(fragment: cmaf.Fragment, start: datetime, timescale: int) -> Span:
    """Round down, as the recorder did: the last fragment ends exactly where its segment ends."""
    first, end = (
        start + ticks * 1_000_000 // timescale * MICROSECOND
        for ticks in (fragment.start, fragment.start + max(1, fragment.duration))
    )
    return Span(first, max(end, first + MICROSECOND))
