"""One tree of errors; each leaf has its own exit code and, where the gate shows it, an HTTP status.

::

    VideostoreError                    exit  http
    ├── SiteError
    │   ├── SiteMissing                 10
    │   ├── SiteExists                  11
    │   ├── SiteTooNew                  12
    │   ├── SiteBusy                    13
    │   ├── ConfigInvalid               14          a file of the site cannot be read or breaks its schema
    │   ├── KeepTooLong                 15          a policy asks for more than paragraph 27 allows
    │   └── BackupInvalid               16          not a backup, cut, altered, or sealed to another key
    ├── CameraError
    │   ├── CameraUnknown               20   404
    │   ├── CameraExists                21
    │   ├── CameraUnreachable           22
    │   ├── CameraRefused               23          wrong user or password
    │   ├── CameraNotRtsp               24
    │   ├── CameraStreamInvalid         25          RTSP works, but there is no stream we can record
    │   ├── CredentialsInvalid          26
    │   ├── CameraInvalid               27          a name or an entry of cameras.yaml
    │   └── CameraUntrusted             28          the certificate of an rtsps camera is not valid
    ├── DiskError
    │   ├── DiskFull                    30   507
    │   └── DiskNotWritable             31
    ├── StoreError
    │   ├── StoreUnavailable            40   503    a later retry may succeed
    │   ├── StoreRefused                41   503    wrong credentials or missing rights: retrying is no use
    │   ├── ObjectMissing               42   410
    │   ├── IntegrityError              43   502    stored bytes are not the bytes that were written
    │   └── FootageDeleted              44   410    at its deadline: carries the certificate's id
    ├── CatalogueUnavailable            45   503
    ├── KeyringError
    │   ├── KeyUnavailable              50   503    no key for that hour, or the keyring cannot be read
    │   ├── KeyDestroyed                51   410
    │   ├── SealBroken                  52   502    the bytes cannot be opened with the key of their hour
    │   └── RecordsUnread               53          the answer lacks entry/exit records that cannot be read
    ├── LedgerError
    │   ├── LedgerUnavailable           55   503    a record cannot be made durable
    │   └── LedgerBroken                56   503    verification failed
    ├── ClockInDoubt                    58   503
    ├── AccessError
    │   ├── NotLoggedIn                 60   401
    │   ├── AccessRefused               61   403    carries the reason code
    │   ├── RequestInvalid              62   400
    │   ├── StaffUnknown                63
    │   ├── SignatureInvalid            64   400
    │   ├── GateUnavailable             65
    │   ├── TooManyRequests             66   429    wait, then try again
    │   ├── ProviderUnavailable         67   503    the provider of OpenID Connect cannot be asked
    │   └── RequestTooLarge             68   413    or it did not arrive in time
    ├── PromiseBroken                   70          `videostore check` found an invariant that does not hold
    └── PromiseUnproven                 71          it found none, and could not read checkpoints elsewhere

Exit code 1 is an error we did not foresee, 2 a command line that makes no sense.
A message says what; a hint says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar


class VideostoreError(Exception):
    """Root of the tree. ``str(error)`` is one line for a person; ``hint`` says what to do next."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SiteError(VideostoreError):
    """The site directory or one of its files."""


class SiteMissing(SiteError):
    exit_code = 10


class SiteExists(SiteError):
    exit_code = 11


class SiteTooNew(SiteError):
    exit_code = 12


class SiteBusy(SiteError):
    exit_code = 13


class ConfigInvalid(SiteError):
    exit_code = 14


class KeepTooLong(SiteError):
    exit_code = 15


class BackupInvalid(SiteError):
    exit_code = 16


class CameraError(VideostoreError):
    """A camera or its stream."""


class CameraUnknown(CameraError):
    exit_code = 20
    http_status = 404


class CameraExists(CameraError):
    exit_code = 21


class CameraUnreachable(CameraError):
    exit_code = 22


class CameraRefused(CameraError):
    exit_code = 23


class CameraNotRtsp(CameraError):
    exit_code = 24


class CameraStreamInvalid(CameraError):
    exit_code = 25


class CredentialsInvalid(CameraError):
    exit_code = 26


class CameraInvalid(CameraError):
    exit_code = 27


class CameraUntrusted(CameraError):
    exit_code = 28


class DiskError(VideostoreError):
    """A local disk."""


class DiskFull(DiskError):
    exit_code = 30
    http_status = 507


class DiskNotWritable(DiskError):
    exit_code = 31


class StoreError(VideostoreError):
    """The object store."""


class StoreUnavailable(StoreError):
    exit_code = 40
    http_status = 503


class StoreRefused(StoreError):
    exit_code = 41
    http_status = 503


class ObjectMissing(StoreError):
    exit_code = 42
    http_status = 410


class IntegrityError(StoreError):
    exit_code = 43
    http_status = 502


class FootageDeleted(StoreError):
    """Footage whose deadline has come; ``certificate`` is the id of the proof, empty until it is written."""

    exit_code = 44
    http_status = 410

    def __init__(self, start: datetime, certificate: str) -> None:
        proof = f"certificate {certificate}" if certificate else "its certificate follows"
        super().__init__(
            f"the footage from {start:%Y-%m-%d %H:%M:%S} UTC reached its deadline and is deleted: {proof}",
            hint=f"The operator shows the proof: `videostore retention verify {certificate or 'ID'}`.",
        )
        self.certificate = certificate


class CatalogueUnavailable(VideostoreError):
    exit_code = 45
    http_status = 503


class KeyringError(VideostoreError):
    """The keyring or one of its hour keys."""


class KeyUnavailable(KeyringError):
    exit_code = 50
    http_status = 503


class KeyDestroyed(KeyringError):
    exit_code = 51
    http_status = 410


class SealBroken(KeyringError):
    exit_code = 52
    http_status = 502


class RecordsUnread(KeyringError):
    """Comes with an answer, not instead of one."""

    exit_code = 53


class LedgerError(VideostoreError):
    """The ledger."""


class LedgerUnavailable(LedgerError):
    exit_code = 55
    http_status = 503


class LedgerBroken(LedgerError):
    exit_code = 56
    http_status = 503


class ClockInDoubt(VideostoreError):
    exit_code = 58
    http_status = 503


class AccessError(VideostoreError):
    """A person and what that person may do."""


class NotLoggedIn(AccessError):
    exit_code = 60
    http_status = 401


class AccessRefused(AccessError):
    """Refused by a rule; ``reason`` is its stable code (see ``domain.access.Reason``)."""

    exit_code = 61
    http_status = 403

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(f"refused: {reason}", hint=hint)
        self.reason = reason


class RequestInvalid(AccessError):
    exit_code = 62
    http_status = 400


class StaffUnknown(AccessError):
    exit_code = 63


class SignatureInvalid(AccessError):
    exit_code = 64
    http_status = 400


class GateUnavailable(AccessError):
    exit_code = 65


class TooManyRequests(AccessError):
    exit_code = 66
    http_status = 429


class ProviderUnavailable(AccessError):
    exit_code = 67
    http_status = 503


class RequestTooLarge(AccessError):
    exit_code = 68
    http_status = 413


class PromiseBroken(VideostoreError):
    exit_code = 70


class PromiseUnproven(VideostoreError):
    exit_code = 71


def every_error(root: type[VideostoreError] = VideostoreError) -> Iterator[type[VideostoreError]]:
    """Yield the leaves of the tree, in the order of their exit codes."""
    leaves = [root]
    while any(leaf.__subclasses__() for leaf in leaves):
        leaves = [child for leaf in leaves for child in (leaf.__subclasses__() or [leaf])]
    yield from sorted(leaves, key=lambda leaf: leaf.exit_code)
