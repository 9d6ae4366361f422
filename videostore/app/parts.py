"""The running objects of one site."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from videostore.check import export, invariants
from videostore.config.credentials import resolve_credentials, resolve_secret
from videostore.config.durations import split_address
from videostore.config.follow import Followed
from videostore.config.settings import (
    BucketAnchorSettings,
    BucketSettings,
    DirectoryAnchorSettings,
    DirectoryStoreSettings,
    S3StoreSettings,
    StoreRole,
)
from videostore.config.site import Site
from videostore.domain import chain
from videostore.domain.camera import CameraId
from videostore.domain.errors import ConfigInvalid, LedgerUnavailable, SignatureInvalid
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import KeyId
from videostore.gate.certificates import OwnCertificate
from videostore.gate.staff import FileStaffDirectory
from videostore.keyring.files import FileKeyring, PublishedKeys
from videostore.keyring.master import MasterKeyFile
from videostore.ledger import verify as ledger_verify
from videostore.ledger.anchors import Anchoring, DirectoryAnchor
from videostore.ledger.files import FileLedger
from videostore.ledger.lines import read_outside
from videostore.ports import Anchor, Clock, Holding, MasterKey, SegmentStore
from videostore.presence.register import PresenceHolding, PresenceReader, PresenceRegister
from videostore.recorder.dropped import Folder, FolderHolding, Pattern
from videostore.recorder.spool import Spool
from videostore.retention.clock import GuardedClock
from videostore.retention.pace import Pace
from videostore.retention.policies import PoliciesOnRecord, last_on_record
from videostore.retention.sweep import Keys, Sweep
from videostore.signing import ExportKey, SigningKey, read_certificate
from videostore.store.decorators import Metered, ReadBack, Retrying
from videostore.store.directory import DirectoryStore

if TYPE_CHECKING:
    from videostore.catalogue.sql import SqlCatalogue
    from videostore.store.bucket import Bucket
    from videostore.store.walls import Walls


class Share:
    """The cameras of process ``number`` of a recorder that is ``of`` processes. What became of a camera is
    dealt with by the first."""

    def __init__(self, site: Site, number: int) -> None:
        self.number = number
        file = site.root / "run" / SHARES
        self._shares = Followed(file, lambda: read_shares(file))
        self.of = 1 + max(self._shares().values(), default=0)

    def holds(self, camera_id: CameraId) -> bool:
        return self._shares().get(str(camera_id), 0) == self.number


SHARES = "shares.json"


def read_shares(file: Path) -> dict[str, int]:
    """Return the number of the process that records each camera, by its UUID."""
    try:
        return {str(name): int(number) for name, number in json.loads(file.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigInvalid(f"{file} cannot be read: {error}", hint="Start the recorder again.") from error


class Parts:
    """The running objects of one site, each built when first asked for; a context manager."""

    def __init__(self, site: Site, *, role: StoreRole = "auditor", share: Share | None = None) -> None:
        """``role``: whose credentials the store sees; ``share``: the cameras of a recorder that is several
        processes."""
        self.site = site
        self.role = role
        self.share = share
        self._open = ExitStack()

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def policies(self) -> Callable[[], Mapping[Kind, RetentionPolicy]]:
        root = self.site.root
        wanted = Followed(
            root / "policies" / "retention.yaml",
            self.site.retention,
            root / "cameras.yaml",
            otherwise=lambda: last_on_record(self.ledger) if self.role == "retention" else None,
        )
        return PoliciesOnRecord(wanted, ledger=lambda: self.ledger, clock=self.clock)

    def policy(self, kind: Kind) -> Callable[[], RetentionPolicy]:
        return lambda: self.policies()[kind]

    @cached_property
    def clock(self) -> GuardedClock:
        settings = self.site.settings.retention
        return GuardedClock(
            self.site.root / "clock.json",
            max_jump=settings.max_clock_jump,
            max_off=settings.max_off,
            witness=lambda: self.store.time(),
        )

    @cached_property
    def store(self) -> SegmentStore:
        return Metered(Retrying(_store(self.site, self.role)))

    @cached_property
    def catalogue(self) -> SqlCatalogue:
        from videostore.catalogue.sql import SqlCatalogue

        settings = self.site.settings.catalogue
        kind, slashes, path = settings.url.partition(":///")
        url = f"{kind}{slashes}{self.site.path(path)}" if kind == "sqlite" else settings.url
        credentials = resolve_credentials(settings.credentials, root=self.site.root)
        catalogue = SqlCatalogue.open(url, credentials=credentials)
        self._open.callback(catalogue.close)
        return catalogue

    @cached_property
    def keyrings(self) -> Mapping[Kind, FileKeyring]:
        settings = self.site.settings.keyring
        return {
            kind: FileKeyring(
                directory,
                master_key=self.master_key,
                policy=self.policy(kind),
                clock=self.clock,
                ahead=settings.ahead,
                buried=partial(self._buried, kind),
            )
            for kind, directory in self._key_directories.items()
        }

    @cached_property
    def master_key(self) -> MasterKey:
        return master_key(self.site, self.site.settings.keyring.master_key)

    def _buried(self, kind: Kind) -> dict[KeyId, datetime]:
        """Return when each key was destroyed, as the ledger says."""
        return {
            KeyId.parse(str(record.body["key_id"])): datetime.fromisoformat(str(record.body["destroyed_at"]))
            for record in self.ledger.find(Event.KEY_DESTROYED)
            if record.body["kind"] == kind
        }

    def published(self, kind: Kind) -> PublishedKeys:
        return PublishedKeys(self._key_directories[kind], policy=self.policy(kind), clock=self.clock)

    @property
    def _key_directories(self) -> Mapping[Kind, Path]:
        return {
            Kind.VIDEO: self.site.path(self.site.settings.keyring.path),
            Kind.ENTRY_EXIT: self.site.root / "presence-keys",
        }

    @cached_property
    def ledger(self) -> FileLedger:
        return _ledger(self.site, self.clock)

    @cached_property
    def anchoring(self) -> Anchoring:
        settings = self.site.settings.ledger
        places = {name: self._anchor(place) for name, place in settings.anchors.items()}
        return Anchoring(self.ledger, places, interval=settings.checkpoint)

    def _anchor(self, settings: DirectoryAnchorSettings | BucketAnchorSettings) -> Anchor:
        if isinstance(settings, DirectoryAnchorSettings):
            return DirectoryAnchor(self.site.path(settings.path))
        from videostore.store.locked import LockedBucket  # boto3 is an extra

        bucket = bucket_of(self.site, settings, settings.credentials)
        return LockedBucket(bucket, keep_for=settings.locked)

    @cached_property
    def spool(self) -> Spool:
        settings = self.site.settings.recorder
        return Spool(
            self.site.path(settings.spool),
            limit_bytes=settings.spool_limit // (self.share.of if self.share else 1),
            mine=self.share.holds if self.share else None,
            sign=lambda run: self._recorder_key.sign(run, context=chain.CONTEXT),
            kept=lambda camera_id, start: self.policies()[Kind.VIDEO].less_of(camera_id, start),
        )

    @cached_property
    def _recorder_key(self) -> SigningKey:
        return SigningKey.load(recorder_key(self.site.root))

    @cached_property
    def folders(self) -> Sequence[Folder]:
        found = []
        for name, settings in self.site.settings.folders.items():
            try:
                pattern = Pattern(settings.pattern, ZoneInfo(settings.timezone))
            except ValueError as error:
                raise ConfigInvalid(
                    f"folders.{name}.pattern: {error}",
                    hint="docs/reference/configuration.md explains patterns.",
                ) from error
            path = self.site.path(settings.path)
            found.append(Folder(name, path, pattern, settings.settle, settings.look))
        return found

    def _key_in(self, folder: Folder) -> Callable[[str, datetime], KeyId]:
        """Return the key that what lies in a drop folder under a camera's part of the name would get."""

        def key_id(part: str, moment: datetime) -> KeyId:
            url = f"folder://{folder.name}/{part}"
            ids = [camera.id for camera in self.site.cameras.all() if camera.url == url]
            policy = self.policies()[Kind.VIDEO]
            return min((policy.key_id(one, moment) for one in ids), key=policy.deadline, default=None) or (
                KeyId.covering(moment, policy.key_period)
            )

        return key_id

    @cached_property
    def holdings(self) -> Mapping[Kind, Sequence[Holding]]:
        folders = [FolderHolding(one, key_id=self._key_in(one)) for one in self.folders]
        return {Kind.VIDEO: [self.spool, *folders], Kind.ENTRY_EXIT: [PresenceHolding(self.store)]}

    @cached_property
    def staff(self) -> FileStaffDirectory:
        return staff(self.site)

    @cached_property
    def presence(self) -> PresenceReader:
        return PresenceReader(self.store, self.keyrings[Kind.ENTRY_EXIT])

    def register(self) -> PresenceRegister:
        """Return what door systems write to: it holds public keys only."""
        return PresenceRegister(
            self.store,
            self.published(Kind.ENTRY_EXIT),
            key_period=self.policy(Kind.ENTRY_EXIT)().key_period,
            clock=self.clock,
        )

    @cached_property
    def walls(self) -> Walls | None:
        """The walls of the store, as this role sees them; None for a directory, which has none."""
        settings = self.site.settings.store
        if isinstance(settings, DirectoryStoreSettings):
            return None
        from videostore.store.walls import Walls

        bucket = bucket_of(self.site, settings, settings.roles.get(self.role, settings.credentials))
        return Walls(bucket, lambda: (self.policies()[Kind.VIDEO], self.policies()[Kind.ENTRY_EXIT]))

    def subject(self) -> invariants.Subject:
        """Return everything a check looks at."""

        def verify() -> tuple[Sequence[str], int]:
            facts, problems = verify_ledger(self.site.root / "ledger", "")
            return problems, int(facts["records"])

        settings = self.site.settings.keyring
        return invariants.Subject(
            policies=self.policies(),
            keyrings=self.keyrings,
            holdings=self.holdings,
            clock=self.clock,
            store=self.store,
            catalogue=self.catalogue,
            ledger=self.ledger,
            verify_ledger=verify,
            store_breaches=lambda: self.walls.breaches(now=host_time()) if self.walls else (),
            private_files=[
                *([] if settings.master_key.startswith(ELSEWHERE) else [self.site.path(settings.master_key)]),
                ledger_key(self.site.root),
                *sorted((self.site.root / "secrets").glob("*")),
                *(key for place in self._key_directories.values() for key in (place / "private").glob("*")),
            ],
        )


def _store(site: Site, role: StoreRole) -> SegmentStore:
    settings = site.settings.store
    if isinstance(settings, DirectoryStoreSettings):
        return DirectoryStore(site.path(settings.path))
    bucket = bucket_of(site, settings, settings.roles.get(role, settings.credentials))
    return ReadBack(s3_adapter(settings)(bucket), settings.read_back)


def s3_adapter(settings: S3StoreSettings) -> Callable[[Bucket], SegmentStore]:
    """Return the adapter of that kind; each is an extra."""
    if settings.kind == "minio":
        from videostore.store.minio import MinioStore

        return MinioStore
    from videostore.store.s3 import S3Store

    return S3Store


def bucket_of(site: Site, settings: BucketSettings, credentials: str) -> Bucket:
    """Return a bucket as whoever ``credentials`` names sees it."""
    from videostore.store.bucket import Bucket  # boto3 is an extra

    return Bucket(
        settings.bucket,
        endpoint=settings.endpoint,
        region=settings.region,
        credentials=resolve_credentials(credentials, root=site.root),
        ca_file=str(site.path(settings.ca_file)) if settings.ca_file else "",
        addressing=settings.addressing,
        proxy=settings.proxy,
    )


def master_key(site: Site, where: str) -> MasterKey:
    """Return the master key in the file, or behind the pkcs11: or transit: URI, that ``where`` names."""
    if where.startswith(TRANSIT):
        from videostore.keyring import transit

        facts = transit.read_uri(where)
        token = resolve_secret(facts["token"], root=site.root)
        ca_file = str(site.path(facts["ca"])) if facts["ca"] else ""
        return transit.MasterKeyTransit(facts["url"], token=token, ca_file=ca_file)
    if not where.startswith(PKCS11):
        return MasterKeyFile(site.path(where))
    try:
        from videostore.keyring.token import MasterKeyToken, read_uri
    except ImportError as error:
        raise ConfigInvalid(
            "a master key in a token needs a library that is not installed",
            hint="pip install 'videostore[pkcs11]'",
        ) from error
    facts = read_uri(where)
    pin = resolve_secret(facts["pin_source"], root=site.root)
    return MasterKeyToken(module=facts["module"], token=facts["token"], label=facts["label"], pin=pin)


PKCS11, TRANSIT = "pkcs11:", "transit:"
ELSEWHERE = (PKCS11, TRANSIT)
"""Where a master key is that is no file."""


def ledger_key(root: Path) -> Path:
    return root / "secrets" / "ledger.key"


def own_certificate(site: Site) -> OwnCertificate:
    """Return the certificate that the gate makes itself, for every name that leads to it."""
    settings = site.settings.gate
    host, _ = split_address(settings.listen)
    told = urlsplit(settings.url).hostname
    here = {socket.gethostname(), socket.getfqdn()} if host in {"0.0.0.0", "::"} else {host}  # noqa: S104
    names = {"localhost", "127.0.0.1", "::1", *here, *([told] if told else [])}
    return OwnCertificate(site.settings.site, frozenset(names), site.root)


def export_key(site: Site) -> ExportKey:
    """Return the key that signs exports; a site that has none yet gets one."""
    key, certificate = site.root / "secrets" / "export.key", site.root / "ledger" / "export.crt"
    if not key.exists():
        return ExportKey.create(key, certificate, name=site.settings.site, now=host_time())
    return ExportKey.load(key, certificate)


RECORDER_PUBLIC_KEY = "recorder.public.key"


def recorder_public_key(root: Path) -> str:
    try:
        return (root / "ledger" / RECORDER_PUBLIC_KEY).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SignatureInvalid(
            f"there is no public key of the recorder: {error.strerror}",
            hint=f"Restore ledger/{RECORDER_PUBLIC_KEY} from a backup.",
        ) from error


def verify_export(path: Path, *, certificate: Path | None, recorder_key: str) -> list[export.Finding]:
    """Verify a film or a manifest, offline."""
    known = read_certificate(certificate) if certificate else None
    return list(export.verify(path, certificate=known, recorder=recorder_key))


def recorder_key(root: Path) -> Path:
    return root / "secrets" / "recorder.key"


def _ledger(site: Site, clock: Clock) -> FileLedger:
    return GuardedLedger(site.root / "ledger", key=SigningKey.load(ledger_key(site.root)), clock=clock)


class GuardedLedger(FileLedger):
    """Takes no record while the site is restored and not reconciled: whoever has records that it lost would
    find a fork. So nothing is shown to anybody either (invariant 7), while recording and deletion go on."""

    def append(self, event: Event, *, actor: str, body: Mapping[str, Json]) -> Record:
        if event is not Event.SITE_RECONCILED and restored_mark(self._directory.parent).exists():
            raise LedgerUnavailable(
                "this site was restored from a backup and is not reconciled yet",
                hint="Run `videostore backup reconcile` (docs/guide/recovery.md).",
            )
        return super().append(event, actor=actor, body=body)


def restored_mark(root: Path) -> Path:
    """Return what says that a site was restored: from which backup. It goes when the site is reconciled."""
    return root / "restored.json"


def staff(site: Site) -> FileStaffDirectory:
    """Return the people on file of a site."""
    return FileStaffDirectory(site.root / "staff", approvers=site.approvers)


def host_time() -> datetime:
    """Return the host's time, for stamps."""
    return datetime.now(UTC)


def sweep(parts: Parts) -> Sweep:
    """Return what sweeps the site, by the policies as they are at each pass."""
    video, entry_exit = (
        Keys(parts.policy(kind), parts.keyrings[kind], parts.holdings[kind])
        for kind in (Kind.VIDEO, Kind.ENTRY_EXIT)
    )
    return Sweep(
        video=video,
        entry_exit=entry_exit,
        clock=parts.clock,
        store=parts.store,
        catalogue=parts.catalogue,
        ledger=parts.ledger,
        pace=Pace(parts.site.settings.retention.deletes_per_second),
        bookmark=parts.site.root / "retention.json",
    )


def verify_ledger(
    directory: Path, public_key: str, *, against: Sequence[Path] = ()
) -> tuple[dict[str, Any], Sequence[str]]:
    """Verify the ledger's files; without ``public_key`` by the key that lies beside them. ``against`` are
    files or directories of checkpoints that were kept elsewhere."""
    outside = [one for path in against for one in read_outside(path)]
    report = ledger_verify.verify(
        directory, public_key=public_key or ledger_public(directory), outside=outside
    )
    return report.to_json(), report.problems


def ledger_public(directory: Path) -> str:
    """Return the public key that lies beside a ledger."""
    try:
        return (directory / "public.key").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SignatureInvalid(
            f"{directory} has no public.key: {error.strerror}", hint="Give --public-key ed25519:…"
        ) from error
