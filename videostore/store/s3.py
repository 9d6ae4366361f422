"""Any S3 store, through boto3 (extra ``videostore[s3]``).

Only Content-MD5 is verified everywhere, so it is sent with every put; our own SHA-256 is in the object's
key and is checked by whoever opens it. Absence is a 404 to HEAD that a listing of the very key confirms:
some stores answer 404 to a caller who may not list.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

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
    from types_boto3_s3.type_defs import ObjectIdentifierTypeDef

_CONNECT_SECONDS, _READ_SECONDS, _CONNECTIONS = 5, 30, 16


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
            listed = next((found for found in self.objects(key) if found.key == key), None)
            return listed.size_bytes if listed else None

    def delete(self, key: ObjectKey) -> None:
        with self._translated(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)
            for version in self._versions(key):
                self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=version["VersionId"])

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

    def _versions(self, key: str) -> Iterator[ObjectIdentifierTypeDef]:
        """Yield every version and delete marker of ``key``; nothing in a bucket without versions."""
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=key)
        for page in pages:
            for entry in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                if entry["Key"] == key and entry.get("VersionId", "null") != "null":
                    yield {"Key": key, "VersionId": entry["VersionId"]}

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
