"""Any S3 store, through boto3 (extra ``videostore[s3]``).

Only Content-MD5 is verified everywhere, so it is sent with every put; our own SHA-256 is in the object's
key and is checked by whoever opens it. Absence is a 404 to HEAD that a listing of the very key confirms:
some stores answer 404 to a caller who may not list. A listing is asked for all versions of it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import groupby
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from videostore.domain.errors import (
    ConfigInvalid,
    IntegrityError,
    ObjectMissing,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.ports import StoredObject

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as error:  # pragma: no cover - the tests install the extra
    raise ConfigInvalid(
        "an S3 store needs boto3, which is not installed", hint="pip install 'videostore[s3]'"
    ) from error

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_CONNECT_SECONDS, _READ_SECONDS, _CONNECTIONS = 5, 30, 16
_BATCH = 1000  # keys in a request to delete: the most that S3 takes


class S3Store:
    """Port SegmentStore over one bucket, which must exist. ``credentials`` is (access key, secret key), or
    None for the AWS chain. Retries are left to the Retrying decorator."""

    def __init__(
        self,
        *,
        endpoint: str,
        bucket: str,
        region: str = "us-east-1",
        credentials: tuple[str, str] | None = None,
        ca_file: str = "",
    ) -> None:
        self._bucket = bucket
        self._where = f"bucket {bucket!r} at {endpoint}"
        access, secret = credentials or (None, None)
        with self._translated():
            self._client: S3Client = boto3.client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id=access,
                aws_secret_access_key=secret,
                verify=ca_file or None,
                config=Config(
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    max_pool_connections=_CONNECTIONS,
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
            self._client.meta.events.register("before-sign.s3.DeleteObjects", _with_md5)

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        if hashlib.sha256(body).hexdigest() != sha256:
            raise IntegrityError(
                f"the bytes for {key} are not those of its hash", hint="They were not stored."
            )
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        with self._translated(key):
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentMD5=md5,
                ContentType="application/octet-stream",
                Metadata={"sha256": sha256},
            )

    def get(self, key: ObjectKey) -> bytes:
        with self._translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            body = answer["Body"].read()
        if len(body) != answer["ContentLength"]:
            raise StoreUnavailable(f"{self._where} sent {key} only in part")
        return body

    def size(self, key: ObjectKey) -> int | None:
        try:
            with self._translated(key):
                return self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        except ObjectMissing:
            with self._translated(key):
                sizes = [size for name, _, size in self._versions(key) if name == key and size is not None]
            return sizes[0] if sizes else None

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        """Versions are removed by their id, so no delete marker comes into being, and one that somebody has
        locked keeps its key visible. What is listed is what the keys of a directory have in common."""
        failures: dict[ObjectKey, str] = {}
        for _, group in groupby(sorted(keys), key=lambda key: key.rpartition("/")[0]):
            wanted = set(group)
            prefix = commonprefix([*wanted])  # noqa: RUF071 - a prefix of keys ends anywhere
            with self._translated():
                self._abort_uploads(wanted, prefix)
                found = [(key, version) for key, version, _ in self._versions(prefix) if key in wanted]
                for at in range(0, len(found), _BATCH):
                    failures.update(self._delete_versions(found[at : at + _BATCH]))
        return failures

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """S3 lists in byte order; some stores put ``/`` before other characters, so each page is sorted."""
        with self._translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                entries = sorted(page.get("Contents", []), key=lambda entry: entry["Key"])
                for entry in entries:
                    yield StoredObject(ObjectKey(entry["Key"]), entry["Size"], entry["LastModified"])

    def prefixes(self, prefix: str = "") -> list[str]:
        with self._translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, Delimiter="/"
            )
            return sorted(common["Prefix"] for page in pages for common in page.get("CommonPrefixes", []))

    def time(self) -> datetime | None:
        with self._translated():
            answer = self._client.head_bucket(Bucket=self._bucket)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
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

    @contextmanager
    def _translated(self, key: str = "") -> Iterator[None]:
        """Turn boto3's errors into ours: what is not known to be final counts as unavailable."""
        try:
            yield
        except ClientError as error:
            raise self._answered(error, key) from error
        except (BotoCoreError, OSError) as error:
            raise StoreUnavailable(
                f"{self._where} did not serve the request: {error}",
                hint="Check the endpoint and the network; what is in the spool is kept.",
            ) from error

    def _answered(self, error: ClientError, key: str) -> StoreError:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        if code == "NoSuchBucket":
            return StoreRefused(f"{self._where} does not exist", hint="Create it, or correct store.bucket.")
        if status == 404:
            return ObjectMissing(f"there is no object {key} in {self._where}")
        if code in {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"}:
            return IntegrityError(
                f"{self._where} received other bytes for {key}", hint="Look at the network."
            )
        if status in {400, 401, 403, 405}:
            return StoreRefused(
                f"{self._where} refused: {code or status}",
                hint="Check store.credentials and the rights of this role.",
            )
        return StoreUnavailable(f"{self._where} answered {code or status}", hint="A later retry may succeed.")


def _with_md5(request: Any, **_: object) -> None:
    """Older MinIO and Ceph take no list of keys to delete without the hash that boto3 sends no more."""
    digest = hashlib.md5(request.data, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
