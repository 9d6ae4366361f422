"""Looks at how a bucket is set up: whether it deletes by itself, and whether somebody makes it keep.

A lock that somebody else sets, a copy elsewhere or a bucket that everybody may read breaks the promise long
before a deadline shows it. The settings are read from the store each time; nothing is believed from before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice
from threading import Event as Stop
from typing import Any

from videostore import telemetry
from videostore.domain.errors import ObjectMissing, PromiseBroken, StoreError, StoreRefused, VideostoreError
from videostore.domain.retention import RetentionPolicy
from videostore.domain.segment import SEGMENTS
from videostore.store.bucket import Bucket
from videostore.store.lifecycle import differences, rules

log = telemetry.logger("store")

_EVERY_SECONDS = 3600.0
_AHEAD_DAYS = 60
"""Rules for the next two months at least are there, or somebody is told to write them anew."""


class Wall(StrEnum):
    """What must stand around the bytes."""

    LIFECYCLE = "lifecycle"
    LOCKLESS = "lockless"
    UNLOCKED = "unlocked"
    ONE_COPY = "one-copy"
    PRIVATE = "private"


BREACHES = frozenset({Wall.UNLOCKED, Wall.ONE_COPY, Wall.PRIVATE})
"""Without these a promise is broken. Without lifecycle rules its backstop is missing, with Object Lock (not
``lockless``) somebody can break it."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not as it must be."""

    wall: Wall
    what: str


class Walls:
    """The walls of one bucket. ``policies`` returns those of video and of entry/exit as they are now."""

    def __init__(
        self, bucket: Bucket, policies: Callable[[], tuple[RetentionPolicy, RetentionPolicy]]
    ) -> None:
        self._bucket = bucket
        self._policies = policies

    def drift(self, *, now: datetime, objects: bool = False) -> Iterator[Drift]:
        """Yield what is not as it must be. With ``objects``, look for a lock at every object, not only at the
        first of each camera and day. Raises StoreError if the store does not say."""
        yield from self._rules(now)
        yield from self._locks(objects=objects)
        yield from self._copies()
        yield from self._strangers()

    def breaches(self, *, now: datetime) -> list[str]:
        """Return what is not as it must be and breaks a promise, a line each. Raises StoreError."""
        return [one.what for one in self.drift(now=now) if one.wall in BREACHES]

    def must_stand(self) -> None:
        """Raise PromiseBroken if the store is known to break a promise.

        What it does not say, or not to this role, is left to the hourly look of retention: a store that is
        down must not stop a recorder from filling its spool.
        """
        for look in (self._locks, self._copies, self._strangers):
            try:
                broken = next((one for one in look() if one.wall in BREACHES), None)
            except StoreRefused:
                continue
            except StoreError as error:
                log.warning("walls.unknown", error=str(error), hint=error.hint)
                return
            if broken:
                raise PromiseBroken(
                    f"{self._bucket}: {broken.what}",
                    hint="What is put there outlives its deadline, or others see it. Mend the bucket; "
                    "`videostore store drift` shows everything.",
                )

    def watch(self, now: Callable[[], datetime], stop: Stop) -> None:
        """Look every hour until ``stop`` is set; say what was found in metrics and log."""
        while True:
            try:
                self.measure(now())
            except VideostoreError as error:
                log.error("walls.unknown", error=str(error), hint=error.hint)
            if stop.wait(_EVERY_SECONDS):
                return

    def measure(self, now: datetime) -> list[Drift]:
        """Look, and set the metrics. They keep their values while the store does not answer."""
        found = list(self.drift(now=now))
        for wall in Wall:
            telemetry.STORE_DRIFT.labels(wall=wall.value).set(sum(one.wall is wall for one in found))
        telemetry.STORE_LOOKED_AT.set(now.timestamp())
        for one in found:
            log.error(
                "wall.missing",
                wall=one.wall.value,
                what=one.what,
                hint="`videostore store drift`, then `videostore store provision`.",
            )
        return found

    def _rules(self, now: datetime) -> Iterator[Drift]:
        bucket = self._bucket
        answer = bucket.setting(lambda: bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name))
        if answer is None:
            yield Drift(Wall.LIFECYCLE, "the store deletes nothing by itself: it has no rules")
            return
        wanted = rules(*self._policies(), today=now.date(), days_ahead=_AHEAD_DAYS)
        yield from (Drift(Wall.LIFECYCLE, line) for line in differences(wanted, answer["Rules"]))

    def _locks(self, *, objects: bool = False) -> Iterator[Drift]:
        """In a bucket without Object Lock nothing can be locked; in one with it, anything may be."""
        client, name = self._bucket.client, self._bucket.name
        lock = self._bucket.setting(lambda: client.get_object_lock_configuration(Bucket=name))
        setting = lock.get("ObjectLockConfiguration", {}) if lock else {}
        if setting.get("ObjectLockEnabled") != "Enabled":
            return
        kept = setting.get("Rule", {}).get("DefaultRetention")
        yield Drift(Wall.LOCKLESS, "Object Lock is on: somebody may lock what must go")
        if kept:
            yield Drift(Wall.UNLOCKED, f"every object is locked: {_terms(kept)}")
        for key in self._every_key() if objects else self._first_keys():
            yield from (Drift(Wall.UNLOCKED, line) for line in self._locked(key))

    def _first_keys(self) -> Iterator[str]:
        client, name = self._bucket.client, self._bucket.name
        with self._bucket.translated():
            for prefix in self._under(SEGMENTS):
                for camera in self._under(prefix):
                    page = client.list_objects_v2(Bucket=name, Prefix=camera, MaxKeys=1)
                    yield from (entry["Key"] for entry in page.get("Contents", []))

    def _under(self, prefix: str) -> list[str]:
        pages = self._bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket.name, Prefix=prefix, Delimiter="/"
        )
        return [common["Prefix"] for page in pages for common in page.get("CommonPrefixes", [])]

    def _every_key(self) -> Iterator[str]:
        with self._bucket.translated():
            for page in self._bucket.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket.name
            ):
                yield from (entry["Key"] for entry in page.get("Contents", []))

    def _locked(self, key: str) -> Iterator[str]:
        client, name = self._bucket.client, self._bucket.name
        hold = kept = None
        with suppress(ObjectMissing):  # or it has no such thing
            hold = self._bucket.setting(lambda: client.get_object_legal_hold(Bucket=name, Key=key))
        with suppress(ObjectMissing):
            kept = self._bucket.setting(lambda: client.get_object_retention(Bucket=name, Key=key))
        if hold and hold.get("LegalHold", {}).get("Status") == "ON":
            yield f"{key} is under a legal hold"
        if kept and kept.get("Retention"):
            yield f"{key} is kept: {_terms(kept['Retention'])}"

    def _copies(self) -> Iterator[Drift]:
        bucket = self._bucket
        found = bucket.setting(lambda: bucket.client.get_bucket_replication(Bucket=bucket.name))
        for rule in found["ReplicationConfiguration"]["Rules"] if found else []:
            if rule["Status"] == "Enabled":
                yield Drift(Wall.ONE_COPY, f"objects are copied to {rule['Destination']['Bucket']}")

    def _strangers(self) -> Iterator[Drift]:
        bucket = self._bucket
        anybody = replace(bucket, credentials=None, anonymous=True)
        with suppress(StoreRefused), anybody.translated():
            anybody.client.list_objects_v2(Bucket=bucket.name, MaxKeys=1)
            yield Drift(Wall.PRIVATE, "anybody may list the bucket")
        for key in islice(self._first_keys(), 1):
            with suppress(StoreRefused), anybody.translated(key):
                anybody.client.get_object(Bucket=bucket.name, Key=key, Range="bytes=0-0")
                yield Drift(Wall.PRIVATE, "anybody may read objects")


def _terms(kept: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(kept.items()))
