"""Rows of the catalogue against what they name: altered, lost, or condemned before their time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from videostore.domain.camera import CameraId
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import KeyId, ObjectKey
from videostore.ports import Catalogue, HourKey, SegmentStore

_SHOWN = 5
_PAGE = 1000


def altered(catalogue: Catalogue) -> tuple[int, list[str]]:
    """Return how many rows do not say what their object key says, and the first few."""
    count, shown = 0, list[str]()
    for row in catalogue.altered():
        count += 1
        if len(shown) < _SHOWN:
            shown.append(row)
    return count, shown


def early(
    catalogue: Catalogue, policy: RetentionPolicy, keys: Iterable[HourKey], now: datetime
) -> tuple[int, dict[tuple[KeyId, CameraId], int]]:
    """Return how many segments are on their way out, and how many of which key and camera were condemned
    before they are due: whoever does that hides footage, though no sweep deletes it before its time."""
    held = {key.key_id: key for key in keys}
    count, found = 0, Counter[tuple[KeyId, CameraId]]()
    for (key_id, camera_id, _), segments in catalogue.leaving().items():
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
    size. A row swept meanwhile is no loss."""
    found: list[str] = []
    after: ObjectKey | None = None
    count = 0
    while page := catalogue.live(after=after, limit=_PAGE):
        count += len(page)
        missing = {one.object_key for one in page if store.size(one.object_key) != one.size_bytes}
        if missing:
            again = catalogue.live(after=after, limit=_PAGE)
            found += sorted(missing & {segment.object_key for segment in again})
        after = page[-1].object_key
    return count, found
