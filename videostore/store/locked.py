"""Checkpoints of the ledger in a bucket with object lock: nobody can remove them before their time.

In compliance mode not even the administrator of the store can. Best the bucket is somebody else's than the
site's, and the site has the right to put there, nothing more. Who compares needs
``s3:ListBucketVersions`` and ``s3:GetObjectVersion``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from videostore.domain.errors import StoreRefused
from videostore.domain.ledger import records_named
from videostore.store.bucket import Bucket, md5_of

_MODE: Literal["COMPLIANCE"] = "COMPLIANCE"


class LockedBucket:
    """Port Anchor. Each object is locked for ``keep_for``."""

    def __init__(self, bucket: Bucket, *, keep_for: timedelta) -> None:
        self._where = bucket
        self._keep_for = keep_for

    def keep(self, name: str, line: bytes) -> None:
        """Raises StoreRefused if the bucket does not lock: it must have been made with object lock."""
        with self._where.translated(name):
            self._where.client.put_object(
                Bucket=self._where.name,
                Key=name,
                Body=line,
                ContentMD5=md5_of(line),
                ContentType="application/json",
                ObjectLockMode=_MODE,
                ObjectLockRetainUntilDate=datetime.now(UTC) + self._keep_for,
            )
        if self._mode(name) not in {_MODE, None}:
            raise StoreRefused(
                f"{self._where} took {name} and does not lock it",
                hint="Make the bucket with object lock; it cannot be added everywhere.",
            )

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Every version: who may put can hide what is locked behind another, or behind a marker."""
        client, name = self._where.client, self._where.name
        with self._where.translated():
            pages = client.get_paginator("list_object_versions").paginate(Bucket=name)
            found = [(one["Key"], one["VersionId"]) for page in pages for one in page.get("Versions", [])]
            for key, version in sorted(found, key=lambda one: records_named(one[0]), reverse=True):
                answer = client.get_object(Bucket=name, Key=key, VersionId=version)
                yield key, answer["Body"].read()

    def _mode(self, name: str) -> str | None:
        """Return how the object is locked, None if we may not ask."""
        try:
            with self._where.translated(name):
                head = self._where.client.head_object(Bucket=self._where.name, Key=name)
        except StoreRefused:
            return None
        return head.get("ObjectLockMode", "not at all")
