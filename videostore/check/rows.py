"""Rows of the catalogue against what they name: altered, lost, missing, or condemned before their time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from videostore.domain.camera import CameraId
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import SEGMENTS, KeyId, ObjectKey, Segment
from videostore.ports import Catalogue, Clock, HourKey, SegmentStore, StoredObject

_SHOWN = 5
_PAGE = 1000
_LONG = timedelta(days=3)


@dataclass(slots=True)
class Unknown:
    """Segments in the store that the catalogue does not know: how many, how many for too ``long``, and the
    first few of these. The round over the store adopts what it finds: what stays unknown has lost its row,
    just now or again and again, and nobody finds it. ``listed`` once all of the store was."""

    count: int = 0
    long: int = 0
    shown: list[str] = field(default_factory=list)
    listed: bool = False

    def noting(
        self, objects: Iterable[StoredObject], catalogue: Catalogue, policy: RetentionPolicy, clock: Clock
    ) -> Iterator[StoredObject]:
        """Yield ``objects``, and note those that are unknown, but for what is about to go."""
        page: dict[ObjectKey, StoredObject] = {}
        for one in objects:
            yield one
            if one.key.startswith(SEGMENTS):
                page[one.key] = one
            if len(page) == _PAGE:
                self._note(page, catalogue, policy, clock)
                page.clear()
        self._note(page, catalogue, policy, clock)
        self.listed = True

    def _note(
        self,
        page: Mapping[ObjectKey, StoredObject],
        catalogue: Catalogue,
        policy: RetentionPolicy,
        clock: Clock,
    ) -> None:
        unknown = sorted(page.keys() - catalogue.known(page.keys()))
        now = clock.read().latest  # after it: what fell due since the listing began may have gone
        since = now - min(_LONG, policy.keep / 3)
        for key in unknown:
            self.count += 1
            with suppress(ValueError):  # a stranger
                one = Segment.from_object_key(key, size_bytes=0)
                due_at = policy.due_at(one.key_id, camera_id=one.camera_id)
                if page[key].stored_at < since and now < due_at:
                    self.long += 1
                    self.shown += [key] if self.long <= _SHOWN else []


def altered(catalogue: Catalogue) -> tuple[int, list[str]]:
    """Return how many rows do not say what their object key says, and the first few."""
    count, shown = 0, list[str]()
    for row in catalogue.altered():
        count += 1
        if len(shown) < _SHOWN:
            shown.append(row)
    return count, shown


def early(
    catalogue: Catalogue, policy: RetentionPolicy, keys: Iterable[HourKey], clock: Clock
) -> tuple[int, dict[tuple[KeyId, CameraId], int]]:
    """Return how many segments are on their way out, and how many of which key and camera were condemned
    before they are due: whoever does that hides footage, though no sweep deletes it before its time. The
    clock is read last: a sweep may go on."""
    held = {key.key_id: key for key in keys}
    count, found = 0, Counter[tuple[KeyId, CameraId]]()
    leaving = catalogue.leaving()
    now = clock.read().latest
    for (key_id, camera_id, _), segments in leaving.items():
        count += segments
        key = held.get(key_id)
        if key is not None and key.destroyed_at is not None:
            continue
        deadlines = [policy.deadline(key_id, camera_id=camera_id), *([key.deadline] if key else [])]
        if now < min(deadlines) - policy.lead:
            found[key_id, camera_id] += segments
    return count, found


def lost(catalogue: Catalogue, store: SegmentStore) -> tuple[int, list[str]]:
    """Return how many live rows there are, and those whose object is gone before its deadline, or of another
    size. A row swept meanwhile is no loss.

    Rows and a listing are in the same order. To ask for each by name takes days where there are tens of
    millions; only what the listing does not show as it is in the row is asked for.
    """
    objects = store.objects(SEGMENTS)
    shown = next(objects, None)
    found: list[str] = []
    after: ObjectKey | None = None
    count = 0
    while page := catalogue.live(after=after, limit=_PAGE):
        count += len(page)
        missing: set[ObjectKey] = set()
        for one in page:
            key = one.object_key
            while shown is not None and shown.key < key:
                shown = next(objects, None)
            if shown is not None and (shown.key, shown.size_bytes) == (key, one.size_bytes):
                continue
            if store.size(key) != one.size_bytes:
                missing.add(key)
        if missing:
            again = catalogue.live(after=after, limit=_PAGE)
            found += sorted(missing & {segment.object_key for segment in again})
        after = page[-1].object_key
    return count, found
