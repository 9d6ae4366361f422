"""A store in memory that can be told to be down."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from videostore.domain.errors import IntegrityError, ObjectMissing, StoreUnavailable
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.ports import StoredObject


class MemorySegmentStore:
    """Port SegmentStore. While ``down`` nothing is available. What it ``refuses`` to delete it says; what
    it ``keeps`` it does not."""

    def __init__(self) -> None:
        self.bodies: dict[ObjectKey, tuple[bytes, datetime]] = {}
        self.down = False
        self.keeps: set[ObjectKey] = set()
        self.refuses: set[ObjectKey] = set()

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        self._up()
        if hashlib.sha256(body).hexdigest() != sha256:
            raise IntegrityError(f"other bytes for {key}")
        self.bodies[key] = body, datetime.now(UTC)

    def link(self, _key: ObjectKey, _file: Path, /) -> bool:
        return False

    def get(self, key: ObjectKey) -> bytes:
        self._up()
        if key not in self.bodies:
            raise ObjectMissing(f"there is no object {key}")
        return self.bodies[key][0]

    def size(self, key: ObjectKey) -> int | None:
        self._up()
        return len(self.bodies[key][0]) if key in self.bodies else None

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        self._up()
        for key in set(keys) - self.keeps - self.refuses:
            self.bodies.pop(key, None)
        return dict.fromkeys(self.refuses & set(keys), "refused")

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        return self.remains(prefix)

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        self._up()
        for key in sorted(self.bodies):
            if key.startswith(prefix) and key > after:
                body, stored_at = self.bodies[key]
                yield StoredObject(key, len(body), stored_at)

    def prefixes(self, prefix: str = "") -> list[str]:
        self._up()
        tails = (key[len(prefix) :] for key in self.bodies if key.startswith(prefix))
        return sorted({f"{prefix}{tail.partition('/')[0]}/" for tail in tails if "/" in tail})

    def time(self) -> datetime | None:
        self._up()
        return None

    def _up(self) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")
