"""Which footage there is, and why some is missing. That alone is information: it needs an open incident."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from videostore.domain.access import Decision, Grant, Reason
from videostore.domain.camera import CameraId
from videostore.domain.coverage import NOT_YET, State, Stretch, damaged, explain
from videostore.domain.ledger import Event, Json
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import EPOCH, GapReason, Span, uncovered
from videostore.gate.rules import Rules
from videostore.ports import Catalogue, Ledger

_OPEN = timedelta(minutes=2)
"""What is younger may still be on its way from the recorder."""
FOOTAGE = frozenset({State.FOOTAGE, State.DAMAGED})

_WHY = MappingProxyType(
    {
        State.DELETED: "lawfully deleted, certificate {detail}",
        State.EXPIRED: "older than footage may be kept",
        State.NOT_RECORDED: "never captured: the camera was not recorded then",
        NOT_YET: "never captured: the camera was added, and no recorder had begun with it",
        State.DAMAGED: "network packets were lost; it plays, with flaws",
        State.OPEN: "still on its way from the recorder",
        State.FUTURE: "not yet",
        State.UNEXPLAINED: "lost: nothing on record explains it",
        GapReason.CAMERA_UNREACHABLE: "never captured: the camera did not answer",
        GapReason.STREAM_ERROR: "never captured: the camera sent nothing that can be recorded",
        GapReason.RECORDER_DOWN: "never captured: the recorder did not run",
        GapReason.PACKET_LOSS: "lost: network packets did not arrive",
        GapReason.SPOOL_OVERRUN: "lost: the recorder had no room left",
    }
)


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a stretch of a camera's time. ``granted``: a grant of the person who asks covers it."""

    camera_id: CameraId
    stretch: Stretch
    granted: bool

    @property
    def why(self) -> str:
        """Say to a person why there is nothing to see, or that a grant is needed; empty if neither."""
        return why_missing(self.stretch) or ("" if self.granted else "not in a grant of yours")


def why_missing(one: Stretch) -> str:
    """Say why footage is missing or flawed; empty if it is not."""
    if one.detail == NOT_YET:
        return _WHY[NOT_YET]
    if one.state is State.GAP:
        return _WHY[GapReason(one.detail)]
    return _WHY[one.state].format(detail=one.detail) if one.state in _WHY else ""


class Search:
    """Looks into catalogue and ledger for people. Safe to share between threads."""

    def __init__(
        self,
        rules: Rules,
        *,
        ledger: Ledger,
        catalogue: Catalogue,
        retention: Callable[[], RetentionPolicy],
    ) -> None:
        self._rules = rules
        self._ledger = ledger
        self._catalogue = catalogue
        self._retention = retention

    def find(self, staff_id: str, incident_id: str, cameras: Collection[CameraId], span: Span) -> list[Found]:
        """Return what became of every second of ``cameras`` in ``span``, by camera as given and by time."""
        decision = self._rules.may_search(staff_id, incident_id)
        if decision.allowed and span.duration > self._rules.policy().max_span:
            decision = Decision(Reason.SPAN_TOO_LONG)
        self._rules.check(staff_id, "search", decision, incident_id=incident_id)
        facts = self._facts(cameras, span)
        now = self._rules.now()
        grants = [
            grant
            for grant in self._rules.book().grants_of(staff_id)
            if not grant.revoked and now < grant.expires_at
        ]
        found = [one for camera in cameras for one in _split(grants, camera, explain(span, facts[camera]))]
        body: dict[str, Json] = {
            "incident_id": incident_id,
            "cameras": [str(camera) for camera in sorted(cameras)],
            "start": span.start.isoformat(),
            "end": span.end.isoformat(),
            "stretches": len(found),
        }
        self._ledger.append(Event.SEARCHED, actor=staff_id, body=body)
        return found

    def explained(self, camera: CameraId, span: Span) -> list[Stretch]:
        """Return what became of ``span`` of a camera. The caller has asked the rules."""
        return explain(span, self._facts([camera], span)[camera])

    def _facts(self, cameras: Collection[CameraId], span: Span) -> dict[CameraId, list[Stretch]]:
        """Collect what catalogue, ledger and the calendar know; ``explain`` says what counts."""
        book, now = self._rules.book(), self._rules.now()
        everywhere = [Stretch(Span(now - _OPEN, now), State.OPEN)]
        if span.end > now:
            everywhere.append(Stretch(Span(now, span.end), State.FUTURE))
        policy = self._retention()
        alive = {camera: Span(policy.expired_before(camera, now), max(now, span.end)) for camera in cameras}
        facts = {
            camera: [
                *everywhere,
                Stretch(Span(EPOCH, alive[camera].start), State.EXPIRED),
                *book.known_of(camera),
            ]
            for camera in cameras
        }
        footage: dict[CameraId, list[Stretch]] = {camera: [] for camera in cameras}
        for camera, held in self._catalogue.footage(cameras, span):
            if part := held.intersection(alive[camera]):  # whatever a retention that is late has left there
                footage[camera].append(Stretch(part, State.FOOTAGE))
        for gap in self._catalogue.gaps(cameras, span):
            missing = Stretch(gap.span, State.GAP, gap.reason.value)
            facts[gap.camera_id].append(missing)
            if gap.reason is GapReason.PACKET_LOSS:
                facts[gap.camera_id] += damaged(footage[gap.camera_id], [missing])
        for camera in cameras:
            added = book.added_at(camera)
            if added is not None and alive[camera].start <= added < min(span.end, now):
                deleted = [one.span for one in facts[camera] if one.state is State.DELETED]
                begun = min(self._first(camera, Span(added, now), deleted), now - _OPEN)
                if added < begun:
                    facts[camera].append(Stretch(Span(added, begun), State.NOT_RECORDED, NOT_YET))
        return {camera: facts[camera] + footage[camera] for camera in cameras}

    def _first(self, camera: CameraId, span: Span, deleted: Sequence[Span]) -> datetime:
        """Return when the first began that is known of a camera within ``span``, its end if nothing is. A
        recorder accounts for every second from the moment that it begins with a camera."""
        spans = [*deleted, *(gap.span for gap in self._catalogue.gaps([camera], span))]
        if oldest := self._catalogue.oldest_key(camera):
            spans += [held for _, held in self._catalogue.footage([camera], oldest.span)]
        return min((one.start for one in spans), default=span.end)


def _split(grants: Iterable[Grant], camera: CameraId, stretches: Iterable[Stretch]) -> Iterator[Found]:
    """Say of footage which of it one of ``grants`` covers."""
    spans = [grant.request.span for grant in grants if camera in grant.request.cameras]
    for one in stretches:
        if one.state not in FOOTAGE:
            yield Found(camera, one, granted=False)
            continue
        without = uncovered(one.span, spans)
        parts = [(span, False) for span in without]
        parts += [(span, True) for span in (uncovered(one.span, without) if without else [one.span])]
        for span, granted in sorted(parts):
            yield Found(camera, Stretch(span, one.state, one.detail), granted=granted)
