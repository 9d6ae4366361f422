"""The rule of paragraph 27 (c): nothing outlives its deadline.

A deadline belongs to an hour key: ``key start + keep``. Every frame sealed to that key was
captured at or after the key's start, so no frame ever reaches the age ``keep``. Retention
begins ``lead`` before the deadline, so that key and bytes are gone when it comes. A camera that is
kept for less is sealed to keys that say so, and that are destroyed so much earlier.

Pure: ``now`` is an argument everywhere. See docs/design/0001-what-30-days-means.md and
0014-who-is-kept-how-long.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Any
from uuid import UUID

from videostore.domain.camera import CameraId
from videostore.domain.errors import ConfigInvalid, KeepTooLong
from videostore.domain.ledger import Json, canonical
from videostore.domain.segment import MICROSECOND, SECOND, SITE_KEEP, KeyId, Segment, Sha256Hex, Span

PARAGRAPH = "A/RES/61/263, paragraph 27 (c)"


class Kind(StrEnum):
    """What paragraph 27 (c) tells apart."""

    VIDEO = "video"
    ENTRY_EXIT = "entry-exit"


CEILING: Mapping[Kind, timedelta] = {Kind.VIDEO: timedelta(days=30), Kind.ENTRY_EXIT: timedelta(hours=24)}
"""The longest ``keep`` that any policy may name. There is no way around it."""


class Reason(StrEnum):
    """Why something is kept or must go."""

    WITHIN_RETENTION = "within-retention"
    PAST_RETENTION = "past-retention"


FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy as it went on record: how long data was kept from ``since`` on, until the next one."""

    since: datetime
    keep: timedelta
    shorter: Mapping[CameraId, timedelta]
    revision: str

    def keep_of(self, camera_id: CameraId | None) -> timedelta:
        return self.shorter.get(camera_id, self.keep) if camera_id else self.keep


@dataclass(frozen=True, slots=True)
class Bound:
    """What is sealed to a key that began by ``until`` is kept no longer than ``loaded`` said."""

    until: datetime
    loaded: Loaded


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long one kind of data is kept.

    ``keep``: age at which nothing may be readable any more.
    ``lead``: how long before the deadline deletion begins.
    ``key_period``: span that one hour key covers.
    ``shorter``: cameras whose footage is kept for less, and for how long.
    ``bounds``: what earlier policies, which were shorter somewhere, leave of it for what exists. They are
    no part of what goes on record: they follow from it.
    """

    kind: Kind
    keep: timedelta
    lead: timedelta
    key_period: timedelta
    shorter: Mapping[CameraId, timedelta] = field(default_factory=dict)
    bounds: Sequence[Bound] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the policy as it goes on record; lengths are whole microseconds."""
        return {
            "kind": self.kind.value,
            "keep_us": self.keep // MICROSECOND,
            "lead_us": self.lead // MICROSECOND,
            "key_period_us": self.key_period // MICROSECOND,
            "shorter_us": {str(camera): keep // MICROSECOND for camera, keep in self.shorter.items()},
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> RetentionPolicy:
        """Return the policy that ``to_json`` wrote."""
        return cls(
            Kind(fields["kind"]),
            fields["keep_us"] * MICROSECOND,
            fields["lead_us"] * MICROSECOND,
            fields["key_period_us"] * MICROSECOND,
            {UUID(name): keep * MICROSECOND for name, keep in fields.get("shorter_us", {}).items()},
        )

    @property
    def revision(self) -> Sha256Hex:
        """SHA-256 over the canonical form of ``to_json``: names this policy in certificates."""
        return Sha256Hex(hashlib.sha256(canonical(self.to_json())).hexdigest())

    def __post_init__(self) -> None:
        ceiling = CEILING[self.kind]
        if self.keep > ceiling:
            raise KeepTooLong(
                f"{self.kind}: keep of {self.keep} is longer than the {ceiling} that {PARAGRAPH} allows",
                hint="Shorten `keep` in policies/retention.yaml. No setting, role or hold can extend it.",
            )
        if self.keep <= timedelta(0) or self.lead < timedelta(0) or self.key_period <= timedelta(0):
            raise ConfigInvalid(
                f"{self.kind}: keep and key_period must be positive, lead not negative",
                hint="Correct policies/retention.yaml.",
            )
        for keep in (self.keep, *self.shorter.values()):
            if self.lead + self.key_period >= keep:
                raise ConfigInvalid(
                    f"{self.kind}: lead + key_period ({self.lead + self.key_period}) leave nothing of "
                    f"keep ({keep}): footage would be due before its hour is over",
                    hint="Shorten `lead` or `key_period`, or lengthen `keep`.",
                )
        for camera_id, keep in self.shorter.items():
            if keep >= self.keep or keep % SECOND:
                raise ConfigInvalid(
                    f"{self.kind}: camera {camera_id} is kept for {keep}: not a whole number of seconds "
                    f"shorter than {self.keep}",
                    hint="Correct policies/retention.yaml.",
                )

    def bounded(self, loaded: Sequence[Loaded]) -> RetentionPolicy:
        """Return this policy, and of each that was ever ``loaded`` (oldest first) what it was shorter in.

        Each bounds what existed when the next one came. The last one, unless it is this policy, bounds
        without end: nothing loosens that is not on record. A clock that went back ends no bound early.
        """
        ends = [*list(accumulate((one.since for one in loaded), max))[1:], FOREVER]
        bounds: list[Bound] = []
        for until, one in reversed(list(zip(ends, loaded, strict=False))):
            later: list[RetentionPolicy | Loaded] = [self, *(bound.loaded for bound in bounds)]
            if not any(_nowhere_longer(other, one) for other in later):
                bounds.append(Bound(until, one))
        return replace(self, bounds=tuple(bounds))

    def shorter_of(self, loaded: Loaded) -> RetentionPolicy:
        """Return what of this policy and one that was ``loaded`` is shorter, for each camera."""
        keep = min(self.keep, loaded.keep)
        keeps = {
            one: min(self.shorter.get(one, keep), loaded.keep_of(one))
            for one in self.shorter.keys() | loaded.shorter.keys()
        }
        return replace(self, keep=keep, shorter={one: less for one, less in keeps.items() if less < keep})

    def keep_of(self, camera_id: CameraId | None, start: datetime = FOREVER) -> timedelta:
        """Return how long footage of a camera is kept whose key begins at ``start``, else from now on.

        None: of any camera that is kept longest.
        """
        keep = self.shorter.get(camera_id, self.keep) if camera_id else self.keep
        bounds = [one.loaded.keep_of(camera_id) for one in self.bounds if start <= one.until]
        return min([keep, *bounds])

    def less_of(self, camera_id: CameraId, start: datetime) -> timedelta:
        """Return the same if it is less than the site keeps, else SITE_KEEP."""
        keep = self.keep_of(camera_id, start)
        return keep if keep < self.keep else SITE_KEEP

    def expired_before(self, camera_id: CameraId, now: datetime) -> datetime:
        """Return the moment before which nothing of a camera may be readable any more at ``now``."""
        ends = [min(one.until, now - one.loaded.keep_of(camera_id)) for one in self.bounds]
        return max([now - self.keep_of(camera_id), *ends])

    @property
    def of_less(self) -> set[CameraId]:
        """The cameras of which anything is kept for less than the site keeps."""
        return set(self.shorter).union(*(one.loaded.shorter for one in self.bounds))

    @property
    def series(self) -> list[timedelta]:
        """What new hour keys are made for: the site, and each shorter keep."""
        return [SITE_KEEP, *sorted(set(self.shorter.values()))]

    def key_id(self, camera_id: CameraId, moment: datetime) -> KeyId:
        """Return the key that a frame of this camera, captured at ``moment``, is to be sealed to."""
        return KeyId.covering(moment, self.key_period, self.shorter.get(camera_id, SITE_KEEP))

    def deadline(self, key_id: KeyId, *, camera_id: CameraId | None = None) -> datetime:
        """When nothing sealed to ``key_id`` may be readable any more; with ``camera_id``, nothing of that
        camera: its keep may have become shorter than that of the key."""
        keep = self.keep_of(camera_id, key_id.start)
        return key_id.start + min(keep, key_id.keep or keep)

    def due_at(self, key_id: KeyId, *, camera_id: CameraId | None = None) -> datetime:
        """When deletion of what is sealed to ``key_id`` begins."""
        return self.deadline(key_id, camera_id=camera_id) - self.lead

    def judge(
        self,
        key_id: KeyId,
        *,
        now: datetime,
        promised: datetime | None = None,
        camera_id: CameraId | None = None,
    ) -> Verdict:
        """Return what must happen at ``now`` to everything sealed to ``key_id``, or to what is of one camera.

        ``promised`` is the deadline given when the key was made. The earlier of the two
        counts: tightening a policy reaches existing footage, loosening never does (invariant 2).
        """
        deadline = self.deadline(key_id, camera_id=camera_id)
        if promised is not None:
            deadline = min(deadline, promised)
        due_at = deadline - self.lead
        reason = Reason.PAST_RETENTION if now >= due_at else Reason.WITHIN_RETENTION
        return Verdict(reason=reason, due_at=due_at, deadline=deadline)


def _nowhere_longer(one: RetentionPolicy | Loaded, other: Loaded) -> bool:
    return one.keep <= other.keep and all(
        one.shorter.get(camera_id, one.keep) <= keep for camera_id, keep in other.shorter.items()
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What must happen, and why."""

    reason: Reason
    due_at: datetime
    deadline: datetime

    @property
    def due(self) -> bool:
        return self.reason is Reason.PAST_RETENTION


class SegmentState(StrEnum):
    """How far a segment is on its way out; it only ever moves forward, then its row is forgotten."""

    LIVE = "live"
    CONDEMNED = "condemned"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Proof that the footage of one camera and one hour key is gone.

    ``span`` reaches from the first to the last frame, ``segments_sha256`` is the hash of the
    sorted list of segment hashes. ``absence`` names how the store confirmed it. ``recipient`` is
    the public half of the destroyed key; both are None for a key that this keyring never had (an
    object found in the store, say). ``policy`` is the revision of the policy in force. It becomes proof
    by standing in the ledger.
    """

    camera_id: CameraId
    key_id: KeyId
    recipient: str | None
    key_destroyed_at: datetime | None
    span: Span
    segments: int
    size_bytes: int
    segments_sha256: Sha256Hex
    confirmed_at: datetime
    absence: str
    deadline: datetime
    policy: Sha256Hex

    @property
    def id(self) -> str:
        """Deterministic: certifying the same segments twice gives the same id."""
        text = f"{self.camera_id}/{self.key_id}/{self.segments_sha256}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_of_segments(segments: Iterable[Segment]) -> Sha256Hex:
    """Return the SHA-256 over the sorted hashes of ``segments``, one per line."""
    lines = sorted(segment.sha256 for segment in segments)
    return Sha256Hex(hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest())
