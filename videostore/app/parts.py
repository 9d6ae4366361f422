"""The running objects of one site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from videostore.app.host import host_time
from videostore.app.keys import (
    ELSEWHERE,
    ledger_key,
    ledger_public,
    login_key,
    master_key,
    recorder_key,
    recorder_public_key,
)
from videostore.app.ledger import open_ledger, verify_against
from videostore.check.subject import Subject
from videostore.config.credentials import resolve_credentials
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
from videostore.domain import chain, keys
from videostore.domain.errors import ConfigInvalid, LedgerError, VideostoreError
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import KeyId
from videostore.gate.staff import FileStaffDirectory
from videostore.keyring.files import FileKeyring, PublishedKeys
from videostore.ledger.anchors import Anchoring, DirectoryAnchor, Outside, must_be_newest, read_anchors
from videostore.ledger.files import FileLedger
from videostore.ports import Anchor, Holding, MasterKey, SegmentStore
from videostore.presence.register import PresenceHolding, PresenceReader, PresenceRegister
from videostore.recorder.dropped import Folder, FolderHolding, Pattern
from videostore.recorder.spool import Spool
from videostore.retention.clock import GuardedClock
from videostore.retention.pace import Pace
from videostore.retention.policies import PoliciesOnRecord, last_on_record
from videostore.retention.sweep import Keys, Sweep
from videostore.signing import SigningKey
from videostore.store.decorators import Metered, ReadBack, Retrying
from videostore.store.directory import DirectoryStore

if TYPE_CHECKING:
    from videostore.app.crew import Share
    from videostore.catalogue.sql import SqlCatalogue
    from videostore.store.bucket import Bucket
    from videostore.store.walls import Walls


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
            otherwise=lambda: (
                last_on_record(self.ledger.find(Event.POLICY_LOADED)) if self.role == "retention" else None
            ),
        )
        return PoliciesOnRecord(
            wanted,
            ledger=lambda: self.ledger,
            clock=self.clock,
            waiting=root / "ledger" / "policies-waiting.json",
        )

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
                signing_key=SigningKey.load(ledger_key(self.site.root)),
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
        """Return when each key that is gone went, as the ledger says."""
        told = keys.KeysOnRecord.of(self.ledger.find(*keys.EVENTS))
        return {key_id: at for (its, key_id), at in told.gone.items() if its is kind}

    def published(self, kind: Kind) -> PublishedKeys:
        return PublishedKeys(
            self._key_directories[kind],
            signed_by=ledger_public(self.site.root / "ledger"),
            policy=self.policy(kind),
            clock=self.clock,
        )

    @property
    def _key_directories(self) -> Mapping[Kind, Path]:
        return {
            Kind.VIDEO: self.site.path(self.site.settings.keyring.path),
            Kind.ENTRY_EXIT: self.site.root / "presence-keys",
        }

    @cached_property
    def ledger(self) -> FileLedger:
        return open_ledger(self.site, self.clock)

    @cached_property
    def anchoring(self) -> Anchoring:
        settings = self.site.settings.ledger
        places = {name: self._anchor(place) for name, place in settings.anchors.items()}
        return Anchoring(self.ledger, places, interval=settings.checkpoint)

    def outside(self) -> Outside:
        """Return what the places of ``ledger.anchors`` kept, as far as an auditor may read it."""
        places = self.site.settings.ledger.anchors.items()
        return read_anchors({name: partial(self._anchor, place, reading=True) for name, place in places})

    def must_have_the_newest_ledger(self) -> None:
        """Raise PromiseBroken rather than go by an older ledger, as far as its anchors may be read."""
        readable = {}
        for name, place in self.site.settings.ledger.anchors.items():
            with suppress(VideostoreError):  # who may read it is not known here
                readable[name] = self._anchor(place, reading=True)
        with suppress(LedgerError):  # a broken ledger opens nothing either: who asks is told
            must_be_newest(self.ledger, readable)

    def _anchor(
        self, settings: DirectoryAnchorSettings | BucketAnchorSettings, *, reading: bool = False
    ) -> Anchor:
        if isinstance(settings, DirectoryAnchorSettings):
            return DirectoryAnchor(self.site.path(settings.path))
        from videostore.store.locked import LockedBucket  # boto3 is an extra

        whose = (reading and settings.auditor) or settings.credentials
        return LockedBucket(bucket_of(self.site, settings, whose), keep_for=settings.locked)

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

    def open_runs(self) -> list[Mapping[str, Any]]:
        """Return the runs of the chain that this host's recorder has not handed over yet. One that ends moves
        from its camera's note to those that wait and on to the ledger: they are read in this order."""
        going_on = list(self.spool.open_runs())
        return [*(run for _, run in self.spool.runs()), *going_on]

    def subject(self, against: Sequence[Path] = ()) -> Subject:
        """Return everything a check looks at; ``against`` are checkpoints besides those of its anchors."""
        outside = cache(self.outside)
        settings = self.site.settings.keyring
        return Subject(
            policies=self.policies(),
            keyrings=self.keyrings,
            holdings=self.holdings,
            clock=self.clock,
            store=self.store,
            catalogue=self.catalogue,
            ledger=self.ledger,
            verify_ledger=lambda: verify_against(self.site.root / "ledger", "", against, outside()),
            unread=lambda: outside().unread,
            recorder=lambda: recorder_public_key(self.site.root),
            open_runs=self.open_runs,
            pending=self.spool.pending,
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


def staff(site: Site) -> FileStaffDirectory:
    """Return the people on file of a site."""
    return FileStaffDirectory(site.root / "staff", approvers=site.approvers, key=lambda: login_key(site))


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


def must_stand(parts: Parts) -> None:
    """Raise PromiseBroken rather than put footage where it cannot be deleted, or is seen by others."""
    if parts.walls is not None:
        parts.walls.must_stand()
