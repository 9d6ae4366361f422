"""What it takes to fill a lost catalogue from the store: ``python bench/rebuild.py``.

The listing is generated (a million segments of 100 cameras, 28 days), so that the time is that of reading
keys and writing rows; a real store's own time comes on top, at a thousand keys a request. The last line
with ``--json`` is one object.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from videostore.catalogue.rebuild import Progress, rebuild
from videostore.catalogue.sql import SqlCatalogue
from videostore.domain.segment import SEGMENTS, Segment, Sha256Hex, Span, day_prefix
from videostore.ports import StoredObject
from videostore.store.directory import DirectoryStore

FIRST = datetime(2026, 11, 1, tzinfo=UTC)
CAMERAS, DAYS = 100, 28
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class Listing(DirectoryStore):
    """A store of which only the listing exists: it keeps nothing, in memory or on disk."""

    def __init__(self, segments: int) -> None:
        self._each = segments // (CAMERAS * DAYS)

    def prefixes(self, prefix: str = "") -> list[str]:
        return [day_prefix((FIRST + day * DAY).date()) for day in range(DAYS)] if prefix == SEGMENTS else []

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        assert prefix == SEGMENTS
        for day in range(DAYS):
            for camera in range(CAMERAS):
                for number in range(self._each):
                    start = FIRST + day * DAY + number * DAY / self._each
                    digest = Sha256Hex(f"{hash((day, camera, number)) & (2**64 - 1):064x}")
                    span = Span(start, start + timedelta(seconds=10))
                    segment = Segment(UUID(int=camera), span, number, HOUR, 2_500_000, digest)
                    yield StoredObject(segment.object_key, segment.size_bytes, start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    store = Listing(options.segments)
    peaks: list[int] = []

    def tell(come: Progress) -> None:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        if come.objects % 100_000 == 0:
            print(f"{come.objects:>9} objects, day {come.day} of {come.days}, {peaks[-1] / 1024:.0f} MB")

    with tempfile.TemporaryDirectory(prefix="bench-rebuild-") as directory:
        catalogue = SqlCatalogue.open(f"sqlite:///{Path(directory) / 'catalogue.db'}")
        began = time.perf_counter()
        first = rebuild(catalogue, store, tell=tell)
        seconds = time.perf_counter() - began
        catalogue.close()
    assert first.added == first.after == first.found
    facts = {
        "segments": first.added,
        "seconds": round(seconds, 1),
        "segments_per_s": round(first.added / seconds),
        "peak_mb_at_a_tenth": round(peaks[len(peaks) // 10] / 1024),
        "peak_mb": round(peaks[-1] / 1024),
    }
    for name, value in facts.items():
        print(f"{name:<20}{value:>12}")
    if options.json:
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
