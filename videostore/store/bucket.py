"""An S3 bucket: where it is, who asks, and what its errors mean (extra ``videostore[s3]``)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from videostore.domain.errors import (
    ConfigInvalid,
    IntegrityError,
    ObjectMissing,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)

try:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, NoCredentialsError, SSLError
    from botocore.exceptions import ClientError as ClientError  # for the modules beside: asked for here once
except ImportError as error:  # pragma: no cover - the tests install the extra
    raise ConfigInvalid(
        "an S3 store needs boto3, which is not installed", hint="pip install 'videostore[s3]'"
    ) from error

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from types_boto3_s3.client import S3Client

Answer = TypeVar("Answer")

CONNECT_SECONDS = 5
_UNSET = {
    *("NoSuchLifecycleConfiguration", "NoSuchObjectLockConfiguration"),
    *("ObjectLockConfigurationNotFoundError", "ReplicationConfigurationNotFoundError"),
    *("NotImplemented", "MethodNotAllowed"),
}
"""How stores say that something is not set, or that they have no such thing."""


@dataclass(frozen=True)
class Bucket:
    """One bucket as one identity sees it.

    ``endpoint`` is a URL, empty for AWS. ``credentials`` is (access key, secret key), or None for the AWS
    chain: environment, profile, a role to assume, web identity, instance.
    """

    name: str
    endpoint: str = ""
    region: str = "us-east-1"
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    ca_file: str = ""
    addressing: Literal["path", "virtual"] = "path"
    proxy: str = ""
    connections: int = 16
    read_seconds: float = 30.0
    anonymous: bool = False

    def __str__(self) -> str:
        return f"bucket {self.name!r} at {self.endpoint or 'AWS'}"

    @cached_property
    def session(self) -> boto3.Session:
        access, secret = self.credentials or (None, None)
        with self.translated():
            return boto3.Session(access, secret, region_name=self.region)

    @cached_property
    def client(self) -> S3Client:
        with self.translated():
            client = self.session.client(
                "s3",
                endpoint_url=self.endpoint or None,
                verify=self.ca_file or None,
                config=Config(
                    signature_version=UNSIGNED if self.anonymous else None,
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=self.read_seconds,
                    max_pool_connections=self.connections,
                    retries={"total_max_attempts": 1},  # the Retrying decorator asks again
                    s3={"addressing_style": self.addressing},
                    proxies={"http": self.proxy, "https": self.proxy} if self.proxy else None,
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        client.meta.events.register("before-sign.s3.DeleteObjects", _with_md5)
        client.meta.events.register("before-sign.s3.PutBucketLifecycleConfiguration", _with_md5)
        return client

    def signer(self) -> Credentials:
        """Return what signs requests, refreshed by itself. Raises StoreRefused if the chain has nothing."""
        with self.translated():
            found = self.session.get_credentials()
        if found is None:
            raise self._nobody()
        return found

    @contextmanager
    def translated(self, key: str = "") -> Iterator[None]:
        """Turn boto3's errors into ours: what is not known to be final counts as unavailable."""
        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            raise self.answered(status, error.response.get("Error", {}).get("Code", ""), key) from error
        except NoCredentialsError as error:
            raise self._nobody() from error
        except SSLError as error:
            raise self.untrusted(error) from error
        except (BotoCoreError, OSError) as error:
            raise self.silent(error) from error

    def setting(self, ask: Callable[[], Answer]) -> Answer | None:
        """Return what the store answers about a setting, None if it is not set or there is no such thing."""
        with self.translated():
            try:
                return ask()
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _UNSET:
                    return None
                raise

    def untrusted(self, error: Exception) -> StoreUnavailable:
        """Return what it means that TLS came to nothing: nothing was sent."""
        return StoreUnavailable(
            f"no TLS with {self}: {error}",
            hint="Name a private authority in store.ca_file; the certificate must be for this host.",
        )

    def silent(self, error: Exception) -> StoreUnavailable:
        """Return what it means that no answer came."""
        return StoreUnavailable(
            f"{self} did not serve the request: {error}",
            hint="Check the endpoint and the network; what is in the spool is kept.",
        )

    def answered(self, status: int, code: str, key: str) -> StoreError:
        """Return what an answer of HTTP ``status`` with the S3 error ``code`` means."""
        if code == "NoSuchBucket":
            return StoreRefused(
                f"{self} does not exist", hint="Correct store.bucket, or run `videostore store provision`."
            )
        if status == 404:
            return ObjectMissing(f"there is no object {key} in {self}")
        if code in {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}:
            return IntegrityError(f"{self} received other bytes for {key}", hint="Look at the network.")
        if code == "RequestTimeTooSkewed":
            return StoreRefused(
                f"{self} refused: its clock and that of this host are too far apart",
                hint="Run chrony on both hosts; nothing in the spool is lost.",
            )
        if status in {400, 401, 403, 405}:
            return StoreRefused(
                f"{self} refused: {code or status}",
                hint="Check the credentials and the rights of this role: `videostore store qualify`.",
            )
        return StoreUnavailable(f"{self} answered {code or status}", hint="A later retry may succeed.")

    def _nobody(self) -> StoreRefused:
        return StoreRefused(
            f"nobody signs requests to {self}",
            hint="Name store.credentials, or give the AWS chain some: environment, profile or role.",
        )


def sha256_of(body: bytes, sha256: str, key: str) -> str:
    """Return ``sha256`` as S3 writes it, base64. Raises IntegrityError if it is not that of ``body``."""
    digest = hashlib.sha256(body)
    if digest.hexdigest() != sha256:
        raise IntegrityError(f"the bytes for {key} are not those of its hash", hint="They were not stored.")
    return base64.b64encode(digest.digest()).decode()


def md5_of(body: bytes) -> str:
    """Return the Content-MD5 of ``body``: the one hash that every store verifies."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _with_md5(request: Any, **_: object) -> None:
    """Older MinIO and Ceph take no list of keys to delete without the hash that boto3 sends no more."""
    request.headers["Content-MD5"] = md5_of(request.data)
