"""What a listing of the store alone says about the promise, without a line of the code that keeps it.

Whoever may list the store can ask this. It takes no key, no catalogue, no ledger: an object's name says when
it must be gone (docs/design/0014-who-is-kept-how-long.md). So names are read here anew, and the arithmetic is
done again, in whole seconds since 1970.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from videostore.ports import StoredObject

VIDEO_S, ENTRY_EXIT_S = 30 * 86_400, 24 * 3_600
"""A/RES/61/263, paragraph 27 (c)."""
SHOWN = 5
_SEGMENT = re.compile(
    r"segments/(\d{4})-(\d\d)-(\d\d)(?:-(\d{7}))?/([0-9a-f-]{36})/"
    r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.\d{6}Z_\d{12}_\d{10}_(\d{5})(?:-(\d{7}))?_[0-9a-f]{64}\.mp4\.age"
)
_PRESENCE = re.compile(r"presence/[^/]+/(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-(\d+)/[^/]+")


@dataclass(frozen=True, slots=True)
class Keeps:
    """The longest that anything may be kept, in seconds; shorter for some cameras, by UUID.

    Each of the ``earlier`` bounds what is of an hour that began by its ``until_s``, in seconds since 1970.
    """

    video_s: int = VIDEO_S
    entry_exit_s: int = ENTRY_EXIT_S
    cameras_s: Mapping[str, int] = field(default_factory=dict)
    until_s: float = math.inf
    earlier: Sequence[Keeps] = ()

    def of(self, camera: str, hour_s: float) -> int:
        """Return for how long footage of a camera and an hour may be kept."""
        keeps = (one for one in (self, *self.earlier) if hour_s <= one.until_s)
        return min(min(one.video_s, one.cameras_s.get(camera, one.video_s)) for one in keeps)

    def of_passages(self, hour_s: float) -> int:
        """Return for how long entry/exit records of an hour may be kept."""
        return min(one.entry_exit_s for one in (self, *self.earlier) if hour_s <= one.until_s)


@dataclass(slots=True)
class Listing:
    """What was found; ``overdue`` and ``boastful`` name the first few.

    ``oldest`` is when the oldest frame was captured. ``strangers`` are objects whose name says nothing: they
    go by their receipt. ``boastful`` names claim what no name may: more than 30 days, or two things at once.
    """

    objects: int = 0
    strangers: int = 0
    overdue_count: int = 0
    overdue: list[str] = field(default_factory=list)
    boastful_count: int = 0
    boastful: list[str] = field(default_factory=list)
    oldest: datetime | None = None

    def is_overdue(self, key: str) -> None:
        self.overdue_count += 1
        if len(self.overdue) < SHOWN:
            self.overdue.append(key)

    def is_boastful(self, key: str) -> None:
        self.boastful_count += 1
        if len(self.boastful) < SHOWN:
            self.boastful.append(key)


def look(objects: Iterable[StoredObject], *, keeps: Keeps, now: datetime) -> Listing:
    """Read a listing from end to end; what it says is derived object by object, so memory stays as it is."""
    found, now_s = Listing(), now.timestamp()
    for one in objects:
        found.objects += 1
        if match := _SEGMENT.fullmatch(one.key):
            _segment(match, one.key, keeps, now_s, found)
        elif match := _PRESENCE.fullmatch(one.key):
            *moment, _ = match.groups()
            hour_s = _seconds(moment)
            if now_s >= hour_s + keeps.of_passages(hour_s):
                found.is_overdue(one.key)
        else:
            found.strangers += 1
            stored_s = one.stored_at.timestamp()
            keep_s = (
                keeps.of_passages(stored_s) if one.key.startswith("presence/") else keeps.of("", stored_s)
            )
            if now_s >= stored_s + keep_s:
                found.is_overdue(one.key)
    return found


def _segment(match: re.Match[str], key: str, keeps: Keeps, now_s: float, found: Listing) -> None:
    _, _, _, day_keep, camera, *moment, period, name_keep = match.groups()
    first_frame = datetime.fromtimestamp(_seconds(moment), UTC)
    claimed_s = int(name_keep or 0)
    start_s = int(first_frame.timestamp())
    hour_s = start_s - start_s % max(1, int(period))
    keep_s = keeps.of(camera, hour_s)
    if now_s >= hour_s + min(keep_s, claimed_s or keep_s):
        found.is_overdue(key)
    if claimed_s > VIDEO_S or not 1 <= int(period) <= 86_400 or day_keep != name_keep:
        found.is_boastful(key)
    if found.oldest is None or first_frame < found.oldest:
        found.oldest = first_frame


def _seconds(moment: Sequence[str]) -> int:
    """Return year, month, day, hour, minute and second as seconds since 1970; 0 for what is no time."""
    try:
        year, month, day, hour, minute, second = (int(part) for part in moment)
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError:
        return 0
