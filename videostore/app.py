"""Composition root: a site's configuration becomes running objects. No rules live here.

A role builds only the parts it may hold (invariant 9): the recorder never constructs a keyring, only
the published public halves. Heavy libraries (database, video, web server) are imported by the function that
builds what needs them: a role loads its own, and a command at a terminal answers at once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import Event as Stop
from typing import TYPE_CHECKING, Any

from videostore import telemetry
from videostore.check import certificate, invariants
from videostore.config.credentials import resolve_credentials
from videostore.config.durations import split_address
from videostore.config.follow import Followed
from videostore.config.settings import DirectoryStoreSettings
from videostore.config.site import NewDirectory, Site, create_site
from videostore.domain.access import right_to_see
from videostore.domain.camera import Camera
from videostore.domain.errors import (
    ClockInDoubt,
    KeyUnavailable,
    SignatureInvalid,
    SiteError,
    VideostoreError,
)
from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.gate.staff import FileStaffDirectory
from videostore.keyring.files import FileKeyring, PublishedKeys, create_master_key
from videostore.ledger import verify as ledger_verify
from videostore.ledger.files import FileLedger
from videostore.ports import Clock, Holding, SegmentStore
from videostore.presence.register import PresenceHolding, PresenceReader, PresenceRegister
from videostore.recorder.spool import Spool
from videostore.retention.clock import GuardedClock
from videostore.retention.plan import Planned
from videostore.retention.plan import plan as plan_hours
from videostore.retention.service import RetentionService
from videostore.retention.sweep import Keys, Sweep
from videostore.signing import SigningKey
from videostore.store.decorators import Metered, Retrying
from videostore.store.directory import DirectoryStore

if TYPE_CHECKING:
    from videostore.catalogue.sql import SqlCatalogue

log = telemetry.logger("app")

ROLES = ("recorder", "retention", "gate")

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

    def register(self) -> PresenceRegister:
        """Return what door systems write to: it holds public keys only."""
        return PresenceRegister(
            self.store,
            self.published(Kind.ENTRY_EXIT),
            key_period=self.policy(Kind.ENTRY_EXIT)().key_period,
            clock=self.clock,
        )

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
            private_files=[
                self.site.path(settings.master_key),
                _ledger_key(self.site.root),
                *sorted((self.site.root / "secrets").glob("*")),
                *(key for place in self._key_directories.values() for key in (place / "private").glob("*")),
            ],
        )


def _store(site: Site) -> SegmentStore:
    settings = site.settings.store
    if isinstance(settings, DirectoryStoreSettings):
        return DirectoryStore(site.path(settings.path))
    from videostore.store.s3 import S3Store  # boto3 is an extra

    return S3Store(
        endpoint=settings.endpoint,
        bucket=settings.bucket,
        region=settings.region,
        credentials=resolve_credentials(settings.credentials, root=site.root),
        ca_file=str(site.path(settings.ca_file)) if settings.ca_file else "",
    )


def _ledger_key(root: Path) -> Path:
    return root / "secrets" / "ledger.key"


def _ledger(site: Site, clock: Clock) -> FileLedger:
    return FileLedger(site.root / "ledger", key=SigningKey.load(_ledger_key(site.root)), clock=clock)


def staff(site: Site) -> FileStaffDirectory:
    """Return the people on file of a site."""
    return FileStaffDirectory(site.root / "staff", approvers=site.approvers)


def host_time() -> datetime:
    """Return the host's time, for stamps."""
    return datetime.now(UTC)


# --- a new site ---


def create(directory: Path, *, name: str, overrides: Mapping[str, str] | None = None) -> None:
    """Make a site, whole or not at all. ``overrides`` replaces configuration files by text."""
    with NewDirectory(directory) as building:
        create_site(building, name=name, overrides=overrides)
        site = Site.load(building)
        create_master_key(site.path(site.settings.keyring.master_key))
        key = SigningKey.create(_ledger_key(building))
        (building / "ledger").mkdir()
        (building / "ledger" / "public.key").write_text(f"{key.public}\n")
        if isinstance(site.settings.store, DirectoryStoreSettings):
            DirectoryStore.create(site.path(site.settings.store.path))
        with Parts(site) as parts:
            parts.ledger.append(Event.SITE_CREATED, actor=OPERATOR, body={"site": site.settings.site})
            parts.catalogue.totals()
            parts.clock.advance()
            report = sweep(parts).run()  # makes the first keys
        if report.errors:
            raise SiteError(report.errors[0], hint="Nothing was made.")


def record(site: Site, event: Event, /, **body: Json) -> Record:
    """Write a record of what was done at the command line."""
    with Parts(site) as parts:
        return parts.ledger.append(event, actor=OPERATOR, body=body)


# --- what commands ask ---


def check_camera(site: Site, camera: Camera) -> dict[str, Any]:
    """Connect to a camera and return what it sends. Raises the CameraError that applies."""
    from videostore.recorder.sources import RtspSource

    settings = site.settings.recorder
    credentials = resolve_credentials(camera.credentials, root=site.root)
    began = time.monotonic()
    stream = RtspSource(stall=settings.stall, now=host_time).open(camera.url, credentials)
    frames, offset, keyframes = 0, None, 0
    try:
        for packet in stream.packets():
            frames += 1
            keyframes += packet.keyframe
            if packet.claimed_at is not None:
                offset = round((packet.received_at - packet.claimed_at).total_seconds(), 3)
            if time.monotonic() - began > _LOOK.total_seconds() or (keyframes > 1 and offset is not None):
                break
    finally:
        stream.close()
    return {
        "camera": camera.name,
        "url": camera.url,
        "codec": stream.info.codec,
        "size": f"{stream.info.width_px}x{stream.info.height_px}",
        "frames_seen": frames,
        "clock_behind_seconds": offset,
    }


_LOOK = timedelta(seconds=5)


def plan(parts: Parts, moment: datetime) -> list[dict[str, Any]]:
    """Return what a sweep at ``moment`` would take, an hour key a row."""
    planned: list[Planned] = []
    for kind, policy in parts.policies().items():
        keys = list(parts.keyrings[kind].keys())
        held = parts.catalogue.key_ids(until=moment) if kind is Kind.VIDEO else []
        planned += plan_hours(policy, keys=keys, rows=held, moment=moment)
    return [
        {
            "kind": one.kind.value,
            "key_id": str(one.key_id),
            "due_at": one.verdict.due_at,
            "deadline": one.verdict.deadline,
            "reason": one.verdict.reason.value,
            "footage": one.rows,
        }
        for one in planned
    ]


def sweep(parts: Parts) -> Sweep:
    """Return a sweep by the policies as they are now."""
    video, entry_exit = (
        Keys(parts.policies()[kind], parts.keyrings[kind], parts.holdings[kind])
        for kind in (Kind.VIDEO, Kind.ENTRY_EXIT)
    )
    return Sweep(
        video=video,
        entry_exit=entry_exit,
        clock=parts.clock,
        store=parts.store,
        catalogue=parts.catalogue,
        ledger=parts.ledger,
    )


def verify_certificate(parts: Parts, certificate_id: str) -> dict[str, Json]:
    """Check one certificate against ledger, keyring and store."""
    return certificate.verify_certificate(parts.subject(), certificate_id)


def rebuild_catalogue(parts: Parts) -> dict[str, int]:
    """Fill the catalogue from a listing of the store."""
    from videostore.catalogue.rebuild import rebuild

    counts = rebuild(parts.catalogue, parts.store)
    return {"found": counts.found, "added": counts.added, "not_segments": counts.strangers}


def verify_ledger(directory: Path, public_key: str) -> tuple[dict[str, Any], Sequence[str]]:
    """Verify the ledger's files; without ``public_key`` by the key that lies beside them."""
    if not public_key:
        try:
            public_key = (directory / "public.key").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SignatureInvalid(
                f"{directory} has no public.key: {error.strerror}", hint="Give --public-key ed25519:…"
            ) from error
    report = ledger_verify.verify(directory, public_key=public_key)
    facts = report.to_json()
    return {key: value for key, value in facts.items() if key != "problems"}, report.problems


def checkpoint(parts: Parts) -> dict[str, Json]:
    """Sign the head of the ledger."""
    return dict(parts.ledger.checkpoint().to_json())


def check(parts: Parts) -> list[invariants.Finding]:
    """Ask every promise of the site."""
    return invariants.check(parts.subject())


def status(parts: Parts) -> dict[str, Any]:
    """Return what runs, what is recorded and what goes next."""
    site = parts.site
    running = site.running()
    totals = parts.catalogue.totals()
    keys = [key for ring in (parts.published(kind) for kind in Kind) for key in ring.keys()]
    policy = parts.policies()[Kind.VIDEO]
    oldest = next(iter(parts.catalogue.key_ids(until=host_time())), None)
    return {
        "site": site.settings.site,
        "running": {role: _where(running.get(role)) for role in ROLES},
        "footage": {
            "segments": totals.segments,
            "size_bytes": totals.size_bytes,
            "condemned": totals.condemned,
            "oldest": totals.oldest,
            "next_due": policy.due_at(oldest) if oldest else None,
        },
        "keys": {
            "live": sum(key.destroyed_at is None for key in keys),
            "destroyed": sum(key.destroyed_at is not None for key in keys),
        },
        "spool_bytes": parts.spool.size_bytes(),
        "cameras": [
            {
                "camera": camera.name,
                "state": "enabled" if camera.enabled else "disabled",
                "footage_until": parts.catalogue.last_end(camera.id),
                "url": camera.url,
            }
            for camera in site.cameras.present()
        ],
    }


def _where(facts: Mapping[str, Any] | None) -> str:
    return "" if facts is None else ", ".join(str(facts[key]) for key in ("gate", "metrics") if key in facts)


def staff_rows(site: Site) -> list[dict[str, Any]]:
    """Return everybody on file, and whether they may see footage now."""
    policy, now = site.access(), host_time()
    rows = []
    for dossier in staff(site).list():
        decision = right_to_see(dossier, policy=policy, now=now)
        valid = [
            paper.valid.end for paper in dossier.approvals if paper.signature_valid and not paper.revoked
        ]
        rows.append(
            {
                "staff_id": dossier.staff.id,
                "department": dossier.staff.department,
                "may_see_footage": decision.allowed,
                "reason": decision.reason.value,
                "approved_until": max(valid, default=None),
            }
        )
    return rows


def diagnose(site: Site) -> list[dict[str, Any]]:
    """Look at what a site needs from its machine; a row for each, with what to do about it."""
    rows: list[dict[str, Any]] = []
    with Parts(site) as parts:
        for what, look in _LOOKS.items():
            try:
                rows.append({"what": what, "ok": True, "answer": look(parts), "hint": ""})
            except VideostoreError as error:
                rows.append({"what": what, "ok": False, "answer": str(error), "hint": error.hint})
    return rows


def _look_at_clock(parts: Parts) -> str:
    reading = parts.clock.read()
    if reading.doubt is not None:
        raise ClockInDoubt(
            f"not believed: {reading.doubt.value}", hint="`videostore retention confirm-clock`"
        )
    return reading.latest.isoformat(timespec="seconds")


def _look_at_disk(parts: Parts) -> str:
    free = shutil.disk_usage(parts.site.root).free
    if free < _LEAST_FREE:
        raise SiteError(f"{free / 1e9:.1f} GB free", hint="Free or enlarge the disk of the site.")
    return f"{free / 1e9:.1f} GB free"


def _look_at_keys(parts: Parts) -> str:
    live = [key for key in parts.published(Kind.VIDEO).keys() if key.destroyed_at is None]
    if not live or live[-1].key_id.span.end < host_time():
        raise KeyUnavailable("no hour key for now", hint="Start `videostore run retention`.")
    return f"ahead until {live[-1].key_id.span.end.isoformat(timespec='minutes')}"


def _look_at_approvers(parts: Parts) -> str:
    approvers = parts.site.approvers()
    if not approvers:
        raise SiteError("nobody can approve", hint="Name an approver in policies/access.yaml.")
    return ", ".join(approvers)


_LOOKS: Mapping[str, Callable[[Parts], str]] = {
    "clock": _look_at_clock,
    "disk": _look_at_disk,
    "store": lambda parts: f"answers, {len(parts.store.prefixes())} prefixes",
    "catalogue": lambda parts: f"{parts.catalogue.totals().segments} segments",
    "hour keys": _look_at_keys,
    "ledger": lambda parts: f"{sum(1 for _ in parts.ledger.records())} records",
    "approvers": _look_at_approvers,
}
_LEAST_FREE = 1_000_000_000  # bytes


# --- running ---


def run(site: Site, role: str, stop: Stop) -> None:
    """Run a role, or one process of each, until ``stop`` is set. Raises SiteBusy if it runs already."""
    if role == "all":
        _run_all(site, stop)
        return
    with site.duty(role), Parts(site) as parts:
        {"recorder": _run_recorder, "retention": _run_retention, "gate": _run_gate}[role](parts, stop)


@contextmanager
def _metrics(site: Site, role: str) -> Iterator[str]:
    address: str = getattr(site.settings.metrics, role)
    host, port = split_address(address)
    try:
        server, thread = telemetry.serve_metrics(host, port)
    except OSError as error:
        raise SiteError(
            f"metrics of the {role} cannot listen on {address}: {error.strerror}",
            hint=f"Choose another `metrics.{role}` in videostore.yaml; port 0 takes a free one.",
        ) from error
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _run_recorder(parts: Parts, stop: Stop) -> None:
    from videostore.recorder.session import Recording
    from videostore.recorder.sources import RtspSource
    from videostore.recorder.supervisor import Recorder
    from videostore.recorder.upload import Uploader

    site, settings = parts.site, parts.site.settings.recorder
    policy = parts.policy(Kind.VIDEO)
    recording = Recording(
        source=RtspSource(stall=settings.stall, now=parts.clock.now),
        spool=parts.spool,
        keys=parts.published(Kind.VIDEO),
        key_period=lambda: policy().key_period,
        segment=settings.segment,
        max_clock_offset=settings.max_clock_offset,
        now=parts.clock.now,
    )
    recorder = Recorder(
        recording,
        Uploader(parts.spool, parts.store, parts.catalogue, now=parts.clock.now),
        cameras=Followed(site.root / "cameras.yaml", site.cameras.all),
        credentials=lambda camera: resolve_credentials(camera.credentials, root=site.root),
    )
    with _metrics(site, "recorder") as metrics:
        site.announce("recorder", {"metrics": metrics})
        recorder.run(stop)


def _run_retention(parts: Parts, stop: Stop) -> None:
    interval = parts.site.settings.retention.sweep
    service = RetentionService(lambda: sweep(parts), clock=parts.clock, interval=interval)
    with _metrics(parts.site, "retention") as metrics:
        parts.site.announce("retention", {"metrics": metrics})
        service.run(stop)


def _run_gate(parts: Parts, stop: Stop) -> None:
    from videostore.gate.api import create_api
    from videostore.gate.logins import Logins
    from videostore.gate.server import serve
    from videostore.gate.service import Gate

    site, settings = parts.site, parts.site.settings.gate
    gate = Gate(
        staff=parts.staff,
        ledger=parts.ledger,
        store=parts.store,
        catalogue=parts.catalogue,
        keyring=parts.keyrings[Kind.VIDEO],
        presence=parts.presence,
        clock=parts.clock,
        logins=Logins(idle=settings.idle, longest=settings.session),
        policy=site.access,  # read anew each time: it fails closed
        retention=parts.policy(Kind.VIDEO),
    )
    host, port = split_address(settings.listen)
    with _metrics(site, "gate") as metrics:
        serve(
            create_api(gate, find_camera=site.cameras.find, all_cameras=site.cameras.all),
            host=host,
            port=port,
            certificate=site.path(settings.tls_certificate) if settings.tls_certificate else None,
            key=site.path(settings.tls_key) if settings.tls_key else None,
            started=lambda url: site.announce("gate", {"metrics": metrics, "gate": url}),
            stop=stop,
        )


def _run_all(site: Site, stop: Stop) -> None:
    """One process a role. One that dies is started again; one that cannot start ends all."""
    with site.duty("all"), ExitStack() as children:
        running: dict[str, subprocess.Popen[bytes]] = {}
        for role in ROLES:
            running[role] = _start(site, role)
            children.callback(_end_role, running, role)
        while not stop.wait(0.2):
            for role, child in running.items():
                code = child.poll()
                if code is None:
                    continue
                if code > 1:  # it said why, and would say it again
                    sys.exit(code)
                log.error("role.died", role=role, exit_code=code)
                stop.wait(1.0)
                if not stop.is_set():
                    running[role] = _start(site, role)


def _start(site: Site, role: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "videostore.cli.main", "run", role, "--site", str(site.root)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own program


def _end_role(running: Mapping[str, subprocess.Popen[bytes]], role: str) -> None:
    child = running[role]
    child.terminate()
    try:
        child.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


_PATIENCE_SECONDS = 20
