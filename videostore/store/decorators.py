"""What any store gains by being wrapped: retries, and measurements."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from tenacity import Retrying as Attempts
from tenacity import retry_if_exception_type, stop_after_attempt, wait_random_exponential

from videostore import telemetry
from videostore.domain.errors import IntegrityError, ObjectMissing, StoreError, StoreUnavailable
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.ports import SegmentStore, StoredObject

Answer = TypeVar("Answer")


class Retrying:
    """Asks again, up to ``attempts`` times, when the store is unavailable; never when it refuses.

    All requests are idempotent, so a put whose answer was lost may be sent again. Listings are not
    repeated: half of one has gone to the caller already.
    """

    def __init__(self, store: SegmentStore, *, attempts: int = 3, longest_wait_seconds: float = 2.0) -> None:
        self._store = store
        self._attempts = attempts
        self._wait = wait_random_exponential(multiplier=0.1, max=longest_wait_seconds)

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        self._again(lambda: self._store.put(key, body, sha256=sha256))

    def link(self, key: ObjectKey, file: Path, /) -> bool:
        return self._again(lambda: self._store.link(key, file))

    def get(self, key: ObjectKey) -> bytes:
        return self._again(lambda: self._store.get(key))

    def size(self, key: ObjectKey) -> int | None:
        return self._again(lambda: self._store.size(key))

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        """Asks again for those keys alone that the store would not remove."""
        left: Mapping[ObjectKey, str] = dict.fromkeys(keys, "")
        for _ in range(self._attempts):
            left = self._again(partial(self._store.delete, left.keys()))
            if not left:
                break
        return left

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        return self._store.objects(prefix)

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        return self._store.remains(prefix, after=after)

    def prefixes(self, prefix: str = "") -> list[str]:
        return self._again(lambda: self._store.prefixes(prefix))

    def time(self) -> datetime | None:
        return self._store.time()

    def _again(self, ask: Callable[[], Answer]) -> Answer:
        return Attempts(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            reraise=True,
        )(ask)


class ReadBack:
    """Asks the store for what it has just stored: its size, or all of it. Catches a store that alters what it
    confirmed; costs the traffic again, and a recorder that may read."""

    def __init__(self, store: SegmentStore, how: Literal["never", "size", "content"]) -> None:
        self._store = store
        self._how = how

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        self._store.put(key, body, sha256=sha256)
        kept = (
            self._how == "never"
            or (self._how == "size" and self._store.size(key) == len(body))
            or (self._how == "content" and self._store.get(key) == body)
        )
        if not kept:
            raise IntegrityError(
                f"the store confirmed {key} and gives something else back",
                hint="Do not trust this store: `videostore store qualify`. The spool keeps the segment.",
            )

    def link(self, _key: ObjectKey, _file: Path, /) -> bool:
        return False  # nothing would be sent, so there is nothing to compare

    def get(self, key: ObjectKey) -> bytes:
        return self._store.get(key)

    def size(self, key: ObjectKey) -> int | None:
        return self._store.size(key)

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        return self._store.delete(keys)

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        return self._store.objects(prefix)

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        return self._store.remains(prefix, after=after)

    def prefixes(self, prefix: str = "") -> list[str]:
        return self._store.prefixes(prefix)

    def time(self) -> datetime | None:
        return self._store.time()


class Metered:
    """Counts and times every request (``videostore_store_request_seconds``, ``…_errors_total``)."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        with _measured("put"):
            self._store.put(key, body, sha256=sha256)

    def link(self, key: ObjectKey, file: Path, /) -> bool:
        with _measured("link"):
            return self._store.link(key, file)

    def get(self, key: ObjectKey) -> bytes:
        with _measured("get"):
            return self._store.get(key)

    def size(self, key: ObjectKey) -> int | None:
        with _measured("size"):
            return self._store.size(key)

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        with _measured("delete"):
            failures = self._store.delete(keys)
        telemetry.STORE_ERRORS.labels(operation="delete", kind="NotDeleted").inc(len(failures))
        return failures

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        return self._store.objects(prefix)

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        return self._store.remains(prefix, after=after)

    def prefixes(self, prefix: str = "") -> list[str]:
        with _measured("prefixes"):
            return self._store.prefixes(prefix)

    def time(self) -> datetime | None:
        return self._store.time()


@contextmanager
def _measured(operation: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    except ObjectMissing:
        raise
    except StoreError as error:
        telemetry.STORE_ERRORS.labels(operation=operation, kind=type(error).__name__).inc()
        raise
    finally:
        telemetry.STORE_REQUESTS.labels(operation=operation).observe(time.perf_counter() - began)
