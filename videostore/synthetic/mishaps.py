"""A world in which everything goes wrong, on a virtual clock: for ``bench/retention_sim.py``.

Chance has one source, so a run can be repeated from its seed as long as the same calls are made.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta

from videostore.domain.errors import ObjectMissing, StoreUnavailable, VideostoreError
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.ports import StoredObject

KILL = 2e-4
"""How probably the process dies before, or after, one call of a port; at most."""


class Killed(BaseException):
    """kill -9."""


class World:
    """True time, what the host's clock makes of it, and chance."""

    def __init__(self, start: datetime, seed: int, *, kill: float = KILL) -> None:
        self.start = self.true = start
        self.kill = kill
        self.error = timedelta(0)
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.calm = False
        self.faults = 0
        self.away: dict[str, datetime] = {}

    def host(self) -> datetime:
        return self.true + self.error

    def elapsed(self) -> float:
        return (self.true - self.start).total_seconds()

    def strikes(self, probability: float) -> bool:
        if self.calm or self.random.random() >= probability:
            return False
        self.faults += 1
        return True

    def is_away(self, what: str) -> bool:
        return not self.calm and self.true < self.away.get(what, self.start)


class Wire:
    """A port on the way to which things go wrong: killed before or after any call, refused, unheard."""

    def __init__(
        self, real: object, world: World, what: str, faults: Mapping[type[VideostoreError], float]
    ) -> None:
        self._real, self._world, self._what, self._faults = real, world, what, faults

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._real, name)

        def call(*args: object, **kwargs: object) -> object:
            self._go_wrong(name)
            answer = method(*args, **kwargs)
            if self._world.strikes(self._world.kill):
                raise Killed
            lost = StoreUnavailable in self._faults and name in {"put", "delete"}
            if lost and self._world.strikes(self._faults[StoreUnavailable]):
                raise StoreUnavailable("the answer was lost")
            return answer

        return call

    def _go_wrong(self, name: str) -> None:
        if self._world.strikes(self._world.kill):
            raise Killed
        for error, probability in self._faults.items():
            if self._world.is_away(self._what) or self._world.strikes(probability):
                raise error(f"{name}: {self._what} is not itself")


class VersionedStore:
    """A bucket in memory; ``versions`` may be switched on at any time. Its clock is right."""

    def __init__(self, world: World, early: Callable[[ObjectKey], bool]) -> None:
        self._world = world
        self._early = early
        self.versions = False
        self.places: dict[str, dict[str, list[tuple[int, datetime]]]] = defaultdict(dict)
        self._sorted: list[str] | None = None
        self.early_deletions = 0

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        assert hashlib.sha256(body).hexdigest() == sha256
        place, _, name = key.rpartition("/")
        if place not in self.places:
            self._sorted = None
        kept = self.places[place].get(name, []) if self.versions else []
        self.places[place][name] = [(len(body), self._world.true), *kept]

    def get(self, key: ObjectKey) -> bytes:
        raise ObjectMissing(key)  # nobody looks here: readability is tried on copies kept elsewhere

    def size(self, key: ObjectKey) -> int | None:
        place, _, name = key.rpartition("/")
        sizes = [size for size, _ in self.places.get(place, {}).get(name, []) if size >= 0]
        return sizes[0] if sizes else None

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        refused = {}
        for key in keys:
            if self._world.strikes(0.001):
                refused[key] = "AccessDenied"
                continue
            place, _, name = key.rpartition("/")
            if self.places.get(place, {}).pop(name, None) is not None:
                self.early_deletions += self._early(key)
            if place in self.places and not self.places[place]:
                del self.places[place]
                self._sorted = None
        return refused

    def delete_plainly(self, key: ObjectKey) -> None:
        """What a tool does that knows nothing of versions: it hides the object behind a marker."""
        place, _, name = key.rpartition("/")
        self.places[place][name].insert(0, (-1, self._world.true))

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        return (found for found in self.remains(prefix) if found.size_bytes >= 0)

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        places = self._under(prefix)
        for place in places[bisect_left(places, after.rpartition("/")[0]) :]:
            base = f"{place}/" if place else ""
            for name in sorted(self.places.get(place, ())):
                if f"{base}{name}".startswith(prefix) and f"{base}{name}" > after:
                    for size, stored_at in self.places[place].get(name, []):
                        yield StoredObject(ObjectKey(f"{base}{name}"), max(0, size), stored_at)
            if self._world.strikes(0.1 / max(1000, len(places))):
                raise StoreUnavailable("the listing broke off")

    def prefixes(self, prefix: str = "") -> list[str]:
        found = {
            f"{place}/"[len(prefix) :].partition("/")[0]
            for place in self._under(prefix)
            if f"{place}/" != prefix
        }
        return [f"{prefix}{name}/" for name in sorted(found) if name]

    def time(self) -> datetime:
        return self._world.true

    def _under(self, prefix: str) -> list[str]:
        """Return the places that may hold keys under ``prefix``."""
        if self._sorted is None:
            self._sorted = sorted(self.places)
        head = prefix.rpartition("/")[0]
        if head in self.places:
            return [head]
        at = bisect_left(self._sorted, head)
        end = bisect_left(self._sorted, head + "\x7f")
        return self._sorted[at:end]
