"""Any S3 store, through boto3.

Our SHA-256 goes with every put as the checksum that S3 verifies, and Content-MD5 for stores that know no
other; whoever opens a segment checks the SHA-256 in its key. Absence is what a listing of all versions says:
a 404 to HEAD tells nothing about older versions, some stores give it to a caller who may not list, and
retention may list but not read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from heapq import merge
from itertools import groupby
from os.path import commonprefix
from pathlib import Path
from typing import Any

from videostore.domain.errors import IntegrityError, StoreUnavailable
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.ports import StoredObject
from videostore.store.bucket import Bucket, ClientError, md5_of, sha256_of

_BATCH = 1000  # keys in a request to delete: the most that S3 takes
_TYPE = "application/octet-stream"


class S3Store:
    """Port SegmentStore over one bucket, which must exist. Retries are left to the Retrying decorator."""

    def __init__(self, bucket: Bucket) -> None:
        self._where = bucket
        self._bucket = bucket.name
        self._client = bucket.client

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        checksum = sha256_of(body, sha256, key)
        with self._where.translated(key):
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentMD5=md5_of(body),
                ChecksumSHA256=checksum,
                ContentType=_TYPE,
            )
        if answer.get("ChecksumSHA256", checksum) != checksum:
            raise IntegrityError(f"{self._where} stored other bytes for {key}", hint="Look at the store.")

    def link(self, _key: ObjectKey, _file: Path, /) -> bool:
        return False

    def get(self, key: ObjectKey) -> bytes:
        with self._where.translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            body = answer["Body"].read()
        if len(body) != answer["ContentLength"]:
            raise StoreUnavailable(f"{self._where} sent {key} only in part")
        return body

    def size(self, key: ObjectKey) -> int | None:
        with self._where.translated(key):
            sizes = [size for name, _, size in self._versions(key) if name == key and size is not None]
        return sizes[0] if sizes else None

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        """Versions are removed by their id, so no delete marker comes into being, and one that somebody has
        locked keeps its key visible. What is listed is what the keys of a directory have in common."""
        failures: dict[ObjectKey, str] = {}
        for _, group in groupby(sorted(keys), key=lambda key: key.rpartition("/")[0]):
            wanted = set(group)
            prefix = commonprefix([*wanted])  # noqa: RUF071 - a prefix of keys ends anywhere
            with self._where.translated():
                self._abort_uploads(wanted, prefix)
                found = [(key, version) for key, version, _ in self._versions(prefix) if key in wanted]
                for at in range(0, len(found), _BATCH):
                    failures.update(self._delete_versions(found[at : at + _BATCH]))
        return failures

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """S3 lists in byte order; some stores put ``/`` before other characters, so each page is sorted."""
        with self._where.translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                entries = sorted(page.get("Contents", []), key=lambda entry: entry["Key"])
                for entry in entries:
                    yield _stored(entry["Key"], entry["Size"], entry["LastModified"])

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        """Needs the rights to list versions and uploads, besides that to list objects."""
        with self._where.translated():
            uploads = (found for found in self._uploads(prefix) if found.key > after)
            yield from merge(self._kept(prefix, after), uploads, key=lambda found: found.key)

    def _kept(self, prefix: str, after: str) -> Iterator[StoredObject]:
        """A directory at a time. SeaweedFS lists ``/`` before ``-`` and goes on behind a page by byte order:
        of days whose names begin alike, a listing without directories would leave some out."""
        here = after.rpartition("/")[0] == prefix.rpartition("/")[0]
        behind: dict[str, Any] = {"KeyMarker": after} if after and here else {}
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket, Prefix=prefix, Delimiter="/", **behind
        )
        for page in pages:
            found: list[StoredObject | str] = [
                *(_stored(one["Key"], one["Size"], one["LastModified"]) for one in page.get("Versions", [])),
                *(_stored(one["Key"], 0, one["LastModified"]) for one in page.get("DeleteMarkers", [])),
                *(common["Prefix"] for common in page.get("CommonPrefixes", [])),
            ]
            for one in sorted(found, key=lambda one: one if isinstance(one, str) else one.key):
                if isinstance(one, str):
                    if one > after or after.startswith(one):
                        yield from self._kept(one, after)
                elif one.key > after:
                    yield one

    def _uploads(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        for page in pages:
            for upload in sorted(page.get("Uploads", []), key=lambda one: one["Key"]):
                yield _stored(upload["Key"], 0, upload["Initiated"])

    def prefixes(self, prefix: str = "") -> list[str]:
        with self._where.translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, Delimiter="/"
            )
            return sorted(common["Prefix"] for page in pages for common in page.get("CommonPrefixes", []))

    def time(self) -> datetime | None:
        """A refusal tells the time as well as any other answer: no role needs a right for it."""
        with self._where.translated():
            try:
                headers = self._client.head_bucket(Bucket=self._bucket)["ResponseMetadata"]["HTTPHeaders"]
            except ClientError as error:
                headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        date = headers.get("date")
        return parsedate_to_datetime(date) if date else None

    def _versions(self, prefix: str) -> Iterator[tuple[ObjectKey, str, int | None]]:
        """Yield key, version and size of everything under ``prefix``, newest first for each key; a delete
        marker has no size. In a bucket that never had versions each object has the version ``null``."""
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        for page in pages:
            for version in page.get("Versions", []):
                yield ObjectKey(version["Key"]), version["VersionId"], version["Size"]
            for marker in page.get("DeleteMarkers", []):
                yield ObjectKey(marker["Key"]), marker["VersionId"], None

    def _delete_versions(self, versions: Sequence[tuple[ObjectKey, str]]) -> Iterator[tuple[ObjectKey, str]]:
        """Delete up to a thousand; yield the keys that are still there, and why."""
        answer = self._client.delete_objects(
            Bucket=self._bucket,
            Delete={
                "Objects": [{"Key": key, "VersionId": version} for key, version in versions],
                "Quiet": True,
            },
        )
        for error in answer.get("Errors", []):
            yield ObjectKey(error["Key"]), f"{error.get('Code', '')}: {error.get('Message', '')}"

    def _abort_uploads(self, keys: Collection[str], prefix: str) -> None:
        """Abort what somebody began to upload under these keys in parts; we never do."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        for page in pages:
            for upload in page.get("Uploads", []):
                if upload["Key"] in keys:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )


def _stored(key: str, size_bytes: int, stored_at: datetime) -> StoredObject:
    return StoredObject(ObjectKey(key), size_bytes, stored_at)
