"""Fills a catalogue from a listing of the store alone: object keys say everything a row says."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from videostore import telemetry
from videostore.domain.segment import SEGMENTS, Segment
from videostore.ports import Catalogue, SegmentStore

_TELL = 1000
log = telemetry.logger("catalogue")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a listing has come: objects seen, and capture days reached of those there are."""

    objects: int
    day: int
    days: int


@dataclass(slots=True)
class Rebuilt:
    """Counts: segments found in the store, those the catalogue did not know, or not as they are, and other
    objects; and the live segments that the catalogue had before and has now. More now than found: their
    objects are missing."""

    found: int = 0
    added: int = 0
    strangers: int = 0
    before: int = 0
    after: int = 0


def rebuild(
    catalogue: Catalogue, store: SegmentStore, *, tell: Callable[[Progress], None] = lambda _: None
) -> Rebuilt:
    """Adopt every segment of ``store``. It only adds, and puts right what was altered: rows on their way out
    stay as they are, and retention condemns at its next sweep what was adopted too late. Gaps are not in
    the store and are not brought back.

    Memory does not grow with the store. ``tell`` hears of every thousandth object.
    """
    counts = Rebuilt(before=catalogue.totals().segments)
    counts.added = catalogue.adopt(_segments(store, counts, tell))
    counts.after = catalogue.totals().segments
    return counts


def _segments(store: SegmentStore, counts: Rebuilt, tell: Callable[[Progress], None]) -> Iterator[Segment]:
    days = store.prefixes(SEGMENTS)
    for number, found in enumerate(store.objects(SEGMENTS)):
        if number % _TELL == 0:
            tell(Progress(number, bisect_left(days, found.key), len(days)))
        try:
            segment = Segment.from_object_key(found.key, size_bytes=found.size_bytes)
        except ValueError:
            counts.strangers += 1
            log.warning("object.strange", object_key=found.key)
            continue
        counts.found += 1
        yield segment
