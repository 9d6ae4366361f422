"""Put and get through the MinIO SDK, the hot path (extra ``videostore[minio]``); all else as in ``s3``.

It spends about half of boto3's CPU on a segment (``python bench/store.py``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3

from videostore.domain.errors import ConfigInvalid, IntegrityError
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.store.bucket import CONNECT_SECONDS, Bucket, sha256_of
from videostore.store.s3 import S3Store

try:
    from minio import Minio
    from minio.credentials.credentials import Credentials
    from minio.credentials.providers import Provider
    from minio.error import MinioException, S3Error, ServerError
except ImportError as error:  # pragma: no cover - the tests install the extra
    raise ConfigInvalid(
        "this store needs the MinIO SDK, which is not installed", hint="pip install 'videostore[minio]'"
    ) from error

_ONE_PART = 5 << 30  # bytes: the largest single put of S3, so that nothing is ever uploaded in parts


class MinioStore(S3Store):
    """Port SegmentStore over one bucket, which must exist."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        url = urlsplit(bucket.endpoint or f"https://s3.{bucket.region}.amazonaws.com")
        self._hot = Minio(
            url.netloc,
            secure=url.scheme == "https",
            region=bucket.region,
            credentials=_Chain(bucket),
            http_client=_connections(bucket, url.scheme, url.hostname or ""),
        )
        if bucket.addressing == "virtual":
            self._hot.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call] # left so by the SDK

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        checksum = sha256_of(body, sha256, key)
        headers: dict[str, str | list[str] | tuple[str]] = {"x-amz-checksum-sha256": checksum}
        with self._understood(key):
            answer = self._hot.put_object(
                self._bucket, key, io.BytesIO(body), len(body), metadata=headers, part_size=_ONE_PART
            )
        headers_back = answer.http_headers or urllib3.HTTPHeaderDict()
        if headers_back.get("x-amz-checksum-sha256", checksum) != checksum:
            raise IntegrityError(f"{self._where} stored other bytes for {key}", hint="Look at the store.")

    def get(self, key: ObjectKey) -> bytes:
        with self._understood(key):
            answer = self._hot.get_object(self._bucket, key)
            try:
                return answer.read()
            finally:
                answer.release_conn()

    @contextmanager
    def _understood(self, key: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise self._where.answered(error.response.status, error.code or "", key) from error
        except ServerError as error:
            raise self._where.answered(error.status_code, "", key) from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._where.silent(error) from error


class _Chain(Provider):
    """Lends the SDK what boto3 found, so that both speak as the same identity."""

    def __init__(self, bucket: Bucket) -> None:
        self._signer = bucket.signer()

    def retrieve(self) -> Credentials:
        found = self._signer.get_frozen_credentials()
        return Credentials(found.access_key or "", found.secret_key or "", found.token)


def _connections(bucket: Bucket, scheme: str, host: str) -> urllib3.PoolManager:
    proxy = bucket.proxy or ("" if proxy_bypass(host) else getproxies().get(scheme, ""))
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=bucket.read_seconds)
    ca_file = bucket.ca_file or certifi.where()
    if proxy:
        return urllib3.ProxyManager(
            proxy, maxsize=bucket.connections, timeout=timeout, ca_certs=ca_file, retries=False
        )
    return urllib3.PoolManager(maxsize=bucket.connections, timeout=timeout, ca_certs=ca_file, retries=False)
