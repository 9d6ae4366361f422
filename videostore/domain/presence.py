"""Entry/exit records: who passed which door, kept for at most 24 hours.

Pure. The badge number is personal data: it exists only inside the seal and in the answer to an
approved reader, never in a key, a log or a metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from videostore.domain.segment import KeyId, ObjectKey

PRESENCE = "presence/"


class Direction(StrEnum):
    ENTRY = "entry"
    EXIT = "exit"


@dataclass(frozen=True, slots=True)
class Passage:
    """One badge read at one door."""

    badge: str
    door: str
    direction: Direction
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Unread:
    """Entry/exit records of one hour that cannot be read. ``records`` is None where the store does not even
    say how many there are; ``why`` is the code of the error."""

    hour: datetime
    records: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Roll:
    """Who was inside: the last passage of everybody, ordered by badge. What is ``unread`` may be anybody's
    entry or exit: as long as there is any, more people may be inside, and some of these may have left."""

    inside: Sequence[Passage]
    unread: Sequence[Unread] = ()


def on_premises(passages: Iterable[Passage]) -> list[Passage]:
    """Return the last passage of every badge that is inside, ordered by badge."""
    last: dict[str, Passage] = {}
    for passage in sorted(passages, key=lambda passage: passage.read_at):
        last[passage.badge] = passage
    return [last[badge] for badge in sorted(last) if last[badge].direction is Direction.ENTRY]


def presence_key(key_id: KeyId, record_id: UUID) -> ObjectKey:
    """Return the object key of one sealed entry/exit record; it says when, not who or where."""
    return ObjectKey(f"{PRESENCE}{key_id.start:%Y-%m-%d}/{key_id}/{record_id}.age")


def presence_key_id(key: str) -> KeyId:
    """Return the hour key an entry/exit object is sealed to. Raises ValueError for any other key."""
    parts = key.split("/")
    if len(parts) != 4 or f"{parts[0]}/" != PRESENCE or not parts[3].endswith(".age"):
        raise ValueError(f"{key!r} is not the key of an entry/exit record")
    key_id = KeyId.parse(parts[2])
    if f"{key_id.start:%Y-%m-%d}" != parts[1]:
        raise ValueError(f"{key!r} contradicts itself")
    return key_id


def counted_from(read_at: datetime, received: datetime) -> datetime:
    """Return the time a record's age counts from: a door's clock never extends its life."""
    return min(read_at, received).astimezone(UTC)
