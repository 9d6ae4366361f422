"""The register of entries and exits: one sealed object a passage, to the hour keys of that kind alone.

Nothing indexes it. Whoever wants to know who is inside opens the records of at most 24 hours, at the
gate, for an incident; the key of each hour is destroyed before any of its records is 24 hours old.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from videostore import telemetry
from videostore.domain.errors import (
    KeyDestroyed,
    KeyUnavailable,
    ObjectMissing,
    RequestInvalid,
    SealBroken,
    StoreError,
    StoreUnavailable,
    VideostoreError,
)
from videostore.domain.presence import (
    PRESENCE,
    Direction,
    Passage,
    Roll,
    Unread,
    counted_from,
    on_premises,
    presence_key,
    presence_key_id,
)
from videostore.domain.segment import KeyId, ObjectKey, Sha256Hex, Span
from videostore.ports import Amount, Clock, Keyring, PublicKeys, SegmentStore
from videostore.sealing import seal

log = telemetry.logger("presence")

_FIELDS = ("badge", "door", "direction", "read_at")


class PresenceRegister:
    """Takes passages in. Holds public keys only: it cannot read what it wrote."""

    def __init__(self, store: SegmentStore, keys: PublicKeys, *, key_period: timedelta, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._key_period = key_period
        self._clock = clock

    def record(self, passage: Passage) -> None:
        """Seal and store a passage durably. Raises KeyDestroyed if it is past its deadline already."""
        received = self._clock.read().earliest  # its life is counted from there
        key_id = KeyId.covering(counted_from(passage.read_at, received), self._key_period)
        try:
            sealed = seal(_encode(passage), recipient=self._keys.recipient(key_id))
        except (KeyDestroyed, KeyUnavailable):
            telemetry.PRESENCE_RECORDS.labels(outcome="refused").inc()
            raise
        digest = Sha256Hex(hashlib.sha256(sealed).hexdigest())
        self._store.put(presence_key(key_id, uuid4()), sealed, sha256=digest)
        telemetry.PRESENCE_RECORDS.labels(outcome="stored").inc()


class PresenceReader:
    """Port PresenceRecords. Opens passages, for the gate."""

    def __init__(self, store: SegmentStore, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring

    def passages(self, span: Span) -> list[Passage]:
        """Return the passages of ``span``, oldest first; what has reached its deadline is not among them."""
        return self._read(span)[0]

    def on_premises(self, at: datetime) -> Roll:
        passages, unread = self._read(Span(at - timedelta(days=2), at + timedelta(microseconds=1)))
        return Roll(on_premises(passages), unread)

    def _read(self, span: Span) -> tuple[list[Passage], list[Unread]]:
        """Return the passages of ``span``, oldest first, and what of its hours could not be read."""
        found: list[Passage] = []
        unread: list[Unread] = []
        destroyed = {key.key_id for key in self._keyring.keys() if key.destroyed_at is not None}
        for key_id in _key_ids(self._store):
            if key_id.start >= span.end or key_id in destroyed:
                continue
            passages, failed = self._of(key_id)
            found += [one for one in passages if span.start <= one.read_at < span.end]
            unread += [Unread(key_id.start, count, why) for why, count in sorted(failed.items())]
        return sorted(found, key=lambda passage: passage.read_at), unread

    def _of(self, key_id: KeyId) -> tuple[list[Passage], dict[str, int | None]]:
        """Return the passages of an hour, and how many more there are, by what keeps them from being read."""
        found: list[Passage] = []
        failed: Counter[str] = Counter()
        try:
            listed = list(self._store.objects(_prefix(key_id)))
        except StoreError as error:
            return [], {type(error).__name__: None}
        for stored in listed:
            try:
                found.append(_decode(self._keyring.open(key_id, self._store.get(stored.key))))
            except ObjectMissing:  # deleted since it was listed
                continue
            except VideostoreError as error:
                failed[type(error).__name__] += 1
                log.error("presence.unread", object_key=stored.key, error=str(error), hint=error.hint)
        return found, dict(failed)


class PresenceHolding:
    """Port Holding: what the store keeps of the register, for retention to empty."""

    name = "presence"

    def __init__(self, store: SegmentStore) -> None:
        self._store = store

    def key_ids(self) -> Sequence[KeyId]:
        return _key_ids(self._store)

    def remove(self, key_id: KeyId) -> int:
        keys = [stored.key for stored in self._store.objects(_prefix(key_id))]
        refused = self._store.delete(keys)
        for key in keys:
            if self._store.size(key) is not None or key in refused:
                raise StoreUnavailable(
                    f"{key} is still there: {refused.get(key, 'the store said it was deleted')}",
                    hint="The next sweep tries again.",
                )
        return len(keys)


def amounts(store: SegmentStore) -> Iterator[Amount]:
    """Yield how much there is of the register, hour by hour."""
    for key_id in _key_ids(store):
        sizes = [stored.size_bytes for stored in store.objects(_prefix(key_id))]
        yield Amount(key_id, None, len(sizes), sum(sizes))


def parse_passage(line: str) -> Passage:
    """Read one passage as door systems send it: a JSON object with badge, door, direction and read_at.

    Raises RequestInvalid for anything else.
    """
    try:
        return _decode(line.encode())
    except SealBroken as error:
        raise RequestInvalid(
            "that is not an entry/exit record",
            hint='Send {"badge": "…", "door": "…", "direction": "entry" or "exit", '
            '"read_at": "2026-11-24T14:00:00Z"}, one a line.',
        ) from error


def _key_ids(store: SegmentStore) -> list[KeyId]:
    found: set[KeyId] = set()
    for day in store.prefixes(PRESENCE):
        for prefix in store.prefixes(day):
            with suppress(ValueError):  # somebody else's: retention judges it by its receipt
                found.add(presence_key_id(f"{prefix}x.age"))
    return sorted(found)


def _prefix(key_id: KeyId) -> ObjectKey:
    return ObjectKey(f"{PRESENCE}{key_id.start:%Y-%m-%d}/{key_id}/")


def _encode(passage: Passage) -> bytes:
    return json.dumps(
        {
            "badge": passage.badge,
            "door": passage.door,
            "direction": passage.direction.value,
            "read_at": passage.read_at.astimezone(UTC).isoformat(),
        }
    ).encode()


def _decode(data: bytes) -> Passage:
    try:
        fields = json.loads(data)
        badge, door, direction, read_at = (fields.pop(name) for name in _FIELDS)
        passage = Passage(badge, door, Direction(direction), datetime.fromisoformat(read_at))
        if fields or not badge or {type(badge), type(door)} != {str} or passage.read_at.tzinfo is None:
            raise ValueError("wrong fields")  # noqa: TRY301
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SealBroken(
            "an entry/exit record does not hold what it should", hint="`videostore check`"
        ) from error
    return passage
