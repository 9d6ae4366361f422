"""Composition root: a site's configuration becomes running objects. No rules live here.

A role builds only the parts it may hold (invariant 9): the recorder never constructs a keyring, only
the published public halves.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from threading import Event as Stop
from typing import Any

from videostore import telemetry
from videostore.catalogue.sql import SqlCatalogue
from videostore.check import certificate, invariants
from videostore.config.credentials import resolve_credentials
from videostore.config.durations import split_address
from videostore.config.follow import Followed
from videostore.config.settings import DirectoryStoreSettings
from videostore.config.site import NewDirectory, Site, create_site
from videostore.domain.access import right_to_see
from videostore.domain.camera import Camera
from videostore.domain.errors import SiteMissing, VideostoreError
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import SEGMENTS, Segment
from videostore.gate.server import serve
from videostore.gate.service import Gate
from videostore.gate.staff import FileStaffDirectory
from videostore.keyring.files import FileKeyring, PublishedKeys, create_keyring
from videostore.ledger.files import FileLedger, verify
from videostore.ports import Catalogue, Holding, SegmentStore
from videostore.presence.register import PresenceHolding, PresenceReader, PresenceRegister
from videostore.recorder.sources import RtspSource
from videostore.recorder.spool import Spool
from videostore.recorder.supervisor import Recorder
from videostore.retention.clock import GuardedClock
from videostore.retention.plan import plan as plan_hours
from videostore.retention.service import RetentionService
from videostore.retention.sweep import Keys, Sweep
from videostore.signing import SigningKey
from videostore.store.decorators import Metered, Retrying
from videostore.store.directory import DirectoryStore
from videostore.store.s3 import S3Store

OPERATOR = "operator"
"""Actor of what is done at the command line of the site itself."""


class Parts:
    """The running objects of one site, each built when first asked for; a context manager."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._open = ExitStack()

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @cached_property
    def policies(self) -> Callable[[], Mapping[Kind, RetentionPolicy]]:
        return Followed(self.site.root / "policies" / "retention.yaml", self.site.retention)

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
        return Metered(Retrying(_store(self.site)))

    @cached_property
    def catalogue(self) -> SqlCatalogue:
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
                master_key=self.site.path(settings.master_key),
                policy=self.policy(kind),
                clock=self.clock,
                ahead=settings.ahead,
            )
            for kind, directory in self._key_directories.items()
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
    def spool(self) -> Spool:
        return Spool(self.site.path(self.site.settings.recorder.spool))

    @cached_property
    def holdings(self) -> Mapping[Kind, Sequence[Holding]]:
        return {Kind.VIDEO: [self.spool], Kind.ENTRY_EXIT: [PresenceHolding(self.store)]}

    @cached_property
    def staff(self) -> FileStaffDirectory:
        return staff(self.site)

    @cached_property
    def presence(self) -> PresenceReader:
        return PresenceReader(self.store, self.keyrings[Kind.ENTRY_EXIT])
