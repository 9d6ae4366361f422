"""Put and get through the MinIO SDK, the hot path (extra ``videostore[minio]``); all else as in ``s3``.

A put spends a third of boto3's CPU (``python bench/store.py``): the SHA-256 that the recorder knows is both
what is signed and what the store verifies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import certifi
import urllib3
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

from videostore.domain.errors import ConfigInvalid, IntegrityError
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.store.bucket import CONNECT_SECONDS, Bucket, sha256_of
from videostore.store.s3 import S3Store

try:
    from minio import Minio
    from minio.credentials.credentials import Credentials
    from minio.credentials.providers import Provider
    from minio.error import MinioException, S3Error, ServerError
    from minio.signer import sign_v4_s3
    from minio.time import to_amz_date
except ImportError as error:  # pragma: no cover - the tests install the extra
    raise ConfigInvalid(
        "this store needs the MinIO SDK, which is not installed", hint="pip install 'videostore[minio]'"
    ) from error

_CODE = re.compile(rb"<Code>(\w+)</Code>")


class MinioStore(S3Store):
    """Port SegmentStore over one bucket, which must exist."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        url = urlsplit(bucket.endpoint or f"https://s3.{bucket.region}.amazonaws.com")
        self._http = _connections(bucket, url.geturl())
        self._chain = _Chain(bucket)
        self._hot = Minio(
            url.netloc,
            secure=url.scheme == "https",
            region=bucket.region,
            credentials=self._chain,
            http_client=self._http,
        )
        self._url = f"{url.scheme}://{url.netloc}/{bucket.name}/"
        if bucket.addressing == "virtual":
            self._hot.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call] # left so by the SDK
            self._url = f"{url.scheme}://{bucket.name}.{url.netloc}/"

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        """Signed by the SDK and sent by us: its ``put_object`` would hash the body once more."""
        checksum = sha256_of(body, sha256, key)
        with self._understood(key):
            answer = self._http.urlopen(
                "PUT", f"{self._url}{key}", body=body, headers=self._signed(key, sha256, checksum)
            )
        if answer.status != HTTPStatus.OK:
            code = _CODE.search(answer.data)
            raise self._where.answered(answer.status, code[1].decode() if code else "", key)
        if answer.headers.get("x-amz-checksum-sha256", checksum) != checksum:
            raise IntegrityError(f"{self._where} stored other bytes for {key}", hint="Look at the store.")

    def _signed(self, key: ObjectKey, sha256: Sha256Hex, checksum: str) -> dict[str, Any]:
        """Return the headers of a put. The signature covers the hash of the body, so the body too."""
        url, now, credentials = urlsplit(f"{self._url}{key}"), datetime.now(UTC), self._chain.retrieve()
        token = {"x-amz-security-token": credentials.session_token} if credentials.session_token else {}
        headers: dict[str, Any] = {
            "Host": url.netloc,
            "Content-Type": "application/octet-stream",
            "x-amz-content-sha256": sha256,
            "x-amz-checksum-sha256": checksum,
            "x-amz-date": to_amz_date(now),
            **token,
        }
        return dict(
            sign_v4_s3(
                method="PUT",
                url=url,
                region=self._where.region,
                headers=headers,
                credentials=credentials,
                content_sha256=sha256,
                date=now,
            )
        )

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
        except urllib3.exceptions.SSLError as error:
            raise self._where.untrusted(error) from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._where.silent(error) from error


class _Chain(Provider):
    """Lends the SDK what boto3 found, so that both speak as the same identity."""

    def __init__(self, bucket: Bucket) -> None:
        self._signer = bucket.signer()

    def retrieve(self) -> Credentials:
        found = self._signer.get_frozen_credentials()
        return Credentials(found.access_key or "", found.secret_key or "", found.token)


def _connections(bucket: Bucket, url: str) -> urllib3.PoolManager:
    """Proxies, their logins and the authority are those that boto3 takes, from the same environment."""
    named = {"http": bucket.proxy, "https": bucket.proxy}
    proxies = ProxyConfiguration(named if bucket.proxy else get_environ_proxies(url))
    proxy = proxies.proxy_url_for(url)
    options: dict[str, Any] = {
        "maxsize": bucket.connections,
        "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=bucket.read_seconds),
        "ca_certs": bucket.ca_file or os.environ.get("AWS_CA_BUNDLE") or certifi.where(),
        "retries": False,
    }
    if proxy:
        return urllib3.ProxyManager(proxy, proxy_headers=proxies.proxy_headers_for(proxy), **options)
    return urllib3.PoolManager(**options)
