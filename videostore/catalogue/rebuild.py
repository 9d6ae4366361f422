"""Fills a catalogue from a listing of the store alone: object keys say everything a row says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from videostore import telemetry
from videostore.domain.segment import SEGMENTS, Segment
from videostore.ports import Catalogue, SegmentStore

log = telemetry.logger("catalogue")


@dataclass(slots=True)
class Rebuilt:
    """Counts: segments found in the store, those the catalogue did not know, and other objects."""

    found: int = 0
    added: int = 0
    strangers: int = 0


def rebuild(catalogue: Catalogue, store: SegmentStore) -> Rebuilt:
    """Adopt every segment of ``store``. It only adds: rows on their way out stay as they are, and
    retention condemns at its next sweep what was adopted too late. Gaps are not in the store and are
    not brought back."""
    counts = Rebuilt()
    counts.added = catalogue.adopt(_segments(store, counts))
    return counts


def _segments(store: SegmentStore, counts: Rebuilt) -> Iterator[Segment]:
    for found in store.objects(SEGMENTS):
        try:
            segment = Segment.from_object_key(found.key, size_bytes=found.size_bytes)
        except ValueError:
            counts.strangers += 1
            log.warning("object.strange", object_key=found.key)
            continue
        counts.found += 1
        yield segment
