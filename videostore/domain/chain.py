"""The chain of a camera's segments: one that is missing, exchanged or altered does not go unnoticed.

Every segment is an item, known by the hash of its object key, which names camera, span, sequence and the
hash of its bytes. The recorder folds the items of a camera into one digest, in the order in which it made
them; what it folded under one hour key is a run, and is signed. Whoever has the run and a listing of the
store folds again: the digests are equal if and only if the segments are the same ones, in the same order.

A run ends with its hour key, so that what is lawfully deleted takes nothing with it. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from videostore.domain.camera import CameraId
from videostore.domain.ledger import Json
from videostore.domain.segment import KeyId, ObjectKey, Segment, Sha256Hex, Span

MILLISECOND = timedelta(milliseconds=1)
BEGINNING = Sha256Hex("0" * 64)
"""The digest before the first segment of a camera."""
CONTEXT = "segments"
"""Of the recorder's signature under a run."""


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """A segment as the chain sees it, in the order of the chain. ``digest`` is of its object key."""

    sequence: int
    start: datetime
    digest: Sha256Hex

    @classmethod
    def of(cls, segment: Segment) -> Item:
        return cls(segment.sequence, segment.span.start, item_digest(segment.object_key))

    def to_json(self) -> list[Json]:
        return [self.sequence, self.start.isoformat(), self.digest]

    @classmethod
    def of_json(cls, fields: Sequence[Json]) -> Item:
        """Read what ``to_json`` wrote. Raises ValueError or TypeError for anything else."""
        sequence, start, digest = fields
        return cls(int(str(sequence)), datetime.fromisoformat(str(start)), Sha256Hex(str(digest)))


@dataclass(frozen=True, slots=True)
class Run:
    """The segments of one camera under one hour key, folded from ``before`` to ``after``.

    ``span`` reaches from the earliest start to the latest end; ``first`` and ``last`` are sequence numbers.
    ``clock_ms`` is evidence of time: how far, at least and at most, the camera's own clock lay behind the
    host's at the beginnings of segments, in milliseconds; None if the camera told no time.
    """

    camera_id: CameraId
    key_id: KeyId
    span: Span
    first: int
    last: int
    segments: int
    before: Sha256Hex
    after: Sha256Hex
    clock_ms: tuple[int, int] | None = None

    def to_json(self) -> Mapping[str, Json]:
        return {
            "camera_id": str(self.camera_id),
            "key_id": str(self.key_id),
            "span": [self.span.start.isoformat(), self.span.end.isoformat()],
            "sequences": [self.first, self.last],
            "segments": self.segments,
            "before": self.before,
            "after": self.after,
            "clock_ms": list(self.clock_ms) if self.clock_ms else None,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Json]) -> Run:
        """Raises ValueError, KeyError or TypeError if ``fields`` are not those of a run."""
        span, sequences, clock = fields["span"], fields["sequences"], fields["clock_ms"]
        if not isinstance(span, list) or not isinstance(sequences, list):
            raise TypeError("span and sequences are lists")
        first, last = (int(str(one)) for one in sequences)
        return cls(
            camera_id=UUID(str(fields["camera_id"])),
            key_id=KeyId.parse(str(fields["key_id"])),
            span=Span(*(datetime.fromisoformat(str(moment)) for moment in span)),
            first=first,
            last=last,
            segments=int(str(fields["segments"])),
            before=Sha256Hex(str(fields["before"])),
            after=Sha256Hex(str(fields["after"])),
            clock_ms=(int(str(clock[0])), int(str(clock[1]))) if isinstance(clock, list) else None,
        )


def item_digest(key: ObjectKey) -> Sha256Hex:
    return Sha256Hex(hashlib.sha256(key.encode()).hexdigest())


def fold(before: Sha256Hex, items: Iterable[Item]) -> Sha256Hex:
    """Return the digest after ``items``."""
    digest = bytes.fromhex(before)
    for item in items:
        digest = hashlib.sha256(digest + bytes.fromhex(item.digest)).digest()
    return Sha256Hex(digest.hex())


def extended(run: Run | None, segment: Segment, clock: timedelta | None = None) -> Run:
    """Return the run that ``segment`` belongs to and that goes on where ``run`` ends: the same one made
    longer, or the next. ``clock`` is how far the camera's clock lay behind at its beginning."""
    measured = [] if clock is None else [clock // MILLISECOND]
    after = fold(run.after if run else BEGINNING, [Item.of(segment)])
    if run is None or run.key_id != segment.key_id:
        return Run(
            camera_id=segment.camera_id,
            key_id=segment.key_id,
            span=segment.span,
            first=segment.sequence,
            last=segment.sequence,
            segments=1,
            before=run.after if run else BEGINNING,
            after=after,
            clock_ms=(measured[0], measured[0]) if measured else None,
        )
    start, end = min(run.span.start, segment.span.start), max(run.span.end, segment.span.end)
    measured += run.clock_ms or ()
    return replace(
        run,
        span=Span(start, end),
        last=segment.sequence,
        segments=run.segments + 1,
        after=after,
        clock_ms=(min(measured), max(measured)) if measured else None,
    )


def belongs(segment: Segment, run: Run) -> bool:
    """Say whether ``segment``, by what it says of itself, is one of ``run``."""
    return (
        segment.key_id == run.key_id
        and run.first <= segment.sequence <= run.last
        and run.span.start <= segment.span.start < run.span.end
    )


def problem(run: Run, found: Sequence[Item]) -> str:
    """Say what is wrong with ``found``, all that is left of ``run`` (what was lost lawfully included);
    empty if nothing is."""
    if fold(run.before, sorted(found)) == run.after:
        return ""
    if len(found) < run.segments:
        return f"{run.segments - len(found)} of {run.segments} segments are missing"
    if len(found) > run.segments:
        return f"{len(found) - run.segments} segments are there that the recorder did not make"
    return "a segment was exchanged for another"


def breaks(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a camera that do not go on where the one before ended, in the order they were made.

    A camera's chain begins anew when the recorder's disk was lost: that is such a break too.
    """
    broken, after = [], None
    for run in runs:
        if after is not None and run.before != after:
            broken.append(run)
        after = run.after
    return broken
