"""The roles of a site, one process each: recorder, retention, gate."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event as Stop
from threading import Thread
from typing import TYPE_CHECKING, Final

from videostore import telemetry
from videostore.app import crew
from videostore.app.host import clock_synchronised, keep_memory_whole, notify, return_free_memory, watchdog
from videostore.app.parts import (
    Parts,
    Share,
    export_key,
    host_time,
    own_certificate,
    recorder_public_key,
    sweep,
)
from videostore.app.ready import lacks
from videostore.config.cameras import find_camera
from videostore.config.credentials import resolve_credentials, resolve_secret
from videostore.config.durations import split_address
from videostore.config.follow import Followed
from videostore.config.site import Site
from videostore.domain.camera import Camera, CameraId
from videostore.domain.errors import PromiseBroken, SiteError, VideostoreError
from videostore.domain.retention import Kind
from videostore.domain.segment import SITE_KEEP, KeyId, Span
from videostore.keyring.master import try_out
from videostore.recorder.dropped import Folder
from videostore.retention.service import RetentionService

if TYPE_CHECKING:
    from videostore.gate.oidc import Provider
    from videostore.recorder.folder import DropFolder
    from videostore.recorder.session import Recording

log = telemetry.logger("app")

ROLES: Final = ("recorder", "retention", "gate")


def run(site: Site, role: str, stop: Stop, *, share: int | None = None) -> None:
    """Run a role, or one process of each, until ``stop`` is set. Raises SiteBusy if it runs already.

    ``share`` is the number of this process, of a recorder that is several.
    """
    if role == "all":
        _run_all(site, stop)
        return
    if share is not None:
        _run_share(site, share, stop)
        return
    name = next(one for one in ROLES if one == role)
    if name == "recorder" and (count := crew.size(site)) > 1:
        _run_crew(site, count, stop)
        return
    with site.duty(name), Parts(site, role=name) as parts:
        {"recorder": _run_recorder, "retention": _run_retention, "gate": _run_gate}[name](parts, stop)


def _run_crew(site: Site, count: int, stop: Stop) -> None:
    def urls() -> list[str]:
        running = site.running()
        parts = (running.get(crew.part_name(number)) for number in range(count))
        return [str(one["metrics"]) for one in parts if one]

    def lacking() -> str:
        return "" if len(urls()) == count else "a process of the recorder does not run"

    asked = {"/healthz": lambda: "", "/readyz": lacking}
    with site.duty("recorder"), _metrics(site, "recorder", asked=asked, together=urls) as metrics:
        _announce(site, "recorder", {"metrics": metrics})
        cameras = Followed(site.root / "cameras.yaml", site.cameras.all)
        crew.run(site, count, stop, cameras=cameras, beat=watchdog())


def _run_share(site: Site, number: int, stop: Stop) -> None:
    """Be one process of the recorder, until ``stop`` is set or the supervisor is no more."""

    def follow() -> None:
        sys.stdin.read()
        stop.set()

    Thread(target=follow, name="supervisor", daemon=True).start()
    name = crew.part_name(number)
    with site.duty(name), Parts(site, role="recorder", share=Share(site, number)) as parts:
        _run_recorder(parts, stop)


def _must_stand(parts: Parts) -> None:
    """Raise PromiseBroken rather than put footage where it cannot be deleted, or is seen by others."""
    if parts.walls is not None:
        parts.walls.must_stand()


def _announce(site: Site, role: str, facts: Mapping[str, str]) -> None:
    site.announce(role, facts)
    notify("READY=1")


def _asked(parts: Parts, role: str, hangs: Callable[[], str] = lambda: "") -> Mapping[str, Callable[[], str]]:
    return {"/healthz": hangs, "/readyz": lambda: hangs() or lacks(parts, role)}


@contextmanager
def _metrics(
    site: Site,
    role: str,
    *,
    asked: Mapping[str, Callable[[], str]],
    address: str = "",
    together: Callable[[], Iterable[str]] | None = None,
) -> Iterator[str]:
    address = address or getattr(site.settings.metrics, role)
    host, port = split_address(address)
    try:
        server, thread = telemetry.serve_metrics(role, host, port, asked=asked, together=together)
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
    from videostore.recorder.choice import ChosenSource
    from videostore.recorder.health import PictureHealth
    from videostore.recorder.session import Recording
    from videostore.recorder.supervisor import Recorder
    from videostore.recorder.upload import Bandwidth, Uploader

    _must_stand(parts)
    keep_memory_whole()
    site, settings = parts.site, parts.site.settings.recorder
    share = parts.share
    pictures = PictureHealth(parts.ledger, interval=settings.look)
    recording = Recording(
        source=ChosenSource(stall=settings.stall, now=parts.clock.now, root=site.root),
        spool=parts.spool,
        keys=parts.published(Kind.VIDEO),
        key_id=_key_for(parts),
        segment=settings.segment,
        max_clock_offset=settings.max_clock_offset,
        now=parts.clock.now,
        look=pictures.offer,
    )
    heart = _Heart()
    recorder = Recorder(
        recording,
        Uploader(
            parts.spool,
            parts.store,
            parts.catalogue,
            parts.ledger,
            now=parts.clock.now,
            at_once=settings.uploads,
            bandwidth=Bandwidth(settings.upload_limit // (share.of if share else 1)),
        ),
        cameras=_cameras(parts),
        credentials=lambda camera: resolve_credentials(camera.credentials, root=site.root),
        beat=heart.beat,
        pictures=pictures,
        folders=[
            _drop_folder(parts, folder, recording)
            for folder in parts.folders
            if share is None or share.number == 0
        ],
    )
    telemetry.SPOOL_LIMIT.set(settings.spool_limit // (share.of if share else 1))
    asked = _asked(parts, "recorder", heart.hangs)
    with _metrics(site, "recorder", asked=asked, address=_ANY_PORT if share else "") as metrics:
        _announce(site, crew.part_name(share.number) if share else "recorder", {"metrics": metrics})
        recorder.run(stop)


_ANY_PORT = "127.0.0.1:0"


def _cameras(parts: Parts) -> Callable[[], Iterable[Camera]]:
    """Return what tells the cameras to record: all, or the share of this process."""
    share, cameras = parts.share, Followed(parts.site.root / "cameras.yaml", parts.site.cameras.all)
    return cameras if share is None else lambda: [one for one in cameras() if share.holds(one.id)]


def _key_for(parts: Parts) -> Callable[[CameraId, datetime], KeyId]:
    """Return which key a frame is sealed to. Until the first key of a new keep is published it is that of the
    site: no footage is lost to a change of the policy, and what outlives the camera's own keep is swept."""
    keys, policy = parts.published(Kind.VIDEO), parts.policy(Kind.VIDEO)

    def key_for(camera_id: CameraId, moment: datetime) -> KeyId:
        key_id = policy().key_id(camera_id, moment)
        return key_id if key_id.keep == SITE_KEEP or keys.has(key_id) else replace(key_id, keep=SITE_KEEP)

    return key_for


def _drop_folder(parts: Parts, folder: Folder, recording: Recording) -> DropFolder:
    from videostore.recorder.folder import DropFolder

    def there(camera: Camera, span: Span) -> list[Span]:
        held = [*parts.catalogue.segments([camera.id], span), *parts.spool.whole(camera.id, span)]
        return [segment.span for segment in held]

    return DropFolder(
        folder,
        recording,
        cameras=Followed(parts.site.root / "cameras.yaml", parts.site.cameras.all),
        there=there,
        keep=lambda camera_id: parts.policies()[Kind.VIDEO].keep_of(camera_id),
    )


class _Heart:
    """What the recorder does about once a second: say that it lives; now and then, look after its host's
    clock and its own memory."""

    def __init__(self) -> None:
        self._alive = watchdog()
        self._looked, self._beaten = float("-inf"), time.monotonic()
        self._said = True

    def beat(self) -> None:
        self._alive()
        self._beaten = time.monotonic()
        if self._beaten - self._looked < _HOUSEKEEPING_SECONDS:
            return
        self._looked = self._beaten
        return_free_memory()
        synchronised = clock_synchronised()
        if synchronised is None:  # the kernel does not say: neither 0 nor 1
            telemetry.HOST_CLOCK_SYNCHRONISED.set(float("nan"))
            return
        telemetry.HOST_CLOCK_SYNCHRONISED.set(synchronised)
        if not synchronised and self._said:
            log.warning("clock.not-synchronised", hint="Run chrony or another time service on this host.")
        self._said = synchronised

    def hangs(self) -> str:
        silent = time.monotonic() - self._beaten
        return f"no sign of life for {silent:.0f} s" if silent > _HOUSEKEEPING_SECONDS else ""


_HOUSEKEEPING_SECONDS = 60


def _run_retention(parts: Parts, stop: Stop) -> None:
    walls, interval = parts.walls, parts.site.settings.retention.sweep
    service = RetentionService(sweep(parts), clock=parts.clock, interval=interval)
    with (
        _metrics(parts.site, "retention", asked=_asked(parts, "retention")) as metrics,
        _beside("walls", None if walls is None else partial(walls.watch, host_time)),
        _beside("anchoring", parts.anchoring.run if parts.site.settings.ledger.anchors else None),
    ):
        _announce(parts.site, "retention", {"metrics": metrics})
        service.run(stop)


@contextmanager
def _beside(name: str, run: Callable[[Stop], None] | None) -> Iterator[None]:
    """Run something else meanwhile, in a thread: whatever becomes of it, keys are destroyed on time."""
    if run is None:
        yield
        return
    end = Stop()
    thread = Thread(target=run, args=(end,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(_PATIENCE_SECONDS)


def _run_gate(parts: Parts, stop: Stop) -> None:
    from videostore.gate.api import create_api
    from videostore.gate.export import Unit
    from videostore.gate.logins import Logins
    from videostore.gate.server import serve
    from videostore.gate.service import Gate

    _must_stand(parts)
    site, settings = parts.site, parts.site.settings.gate
    try_out(parts.master_key)
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
        notice=site.notice,
        provider=_provider(parts),
        unit=Unit(site.settings.site, export_key(site), recorder_public_key(site.root)),
        watch=site.watch,
        approvers=site.approvers,
    )
    cameras = Followed(site.root / "cameras.yaml", site.cameras.all)
    host, port = split_address(settings.listen)
    certificate, key = _tls(site)
    with _metrics(site, "gate", asked=_asked(parts, "gate")) as metrics:
        serve(
            create_api(gate, find_camera=lambda name: find_camera(cameras(), name), all_cameras=cameras),
            host=host,
            port=port,
            certificate=certificate,
            key=key,
            started=lambda url: _announce(site, "gate", {"metrics": metrics, "gate": url}),
            stop=stop,
            beat=_each(
                certificate=_every(3600, lambda: _tls(site)), oversight=_every(5, gate.oversight.look)
            ),
        )


def _each(**actions: Callable[[], object]) -> Callable[[], None]:
    """Return what does all of ``actions``. One that fails says so, and ends neither another nor the role."""

    def beat() -> None:
        for name, action in actions.items():
            try:
                action()
            except VideostoreError as error:
                log.error(f"{name}.failed", error=str(error), hint=error.hint)

    return beat


def _every(seconds: float, action: Callable[[], object]) -> Callable[[], None]:
    """Return what does ``action`` when it is called after so long."""
    done = time.monotonic()

    def beat() -> None:
        nonlocal done
        if time.monotonic() - done >= seconds:
            done = time.monotonic()
            action()

    return beat


def _tls(site: Site) -> tuple[Path | None, Path | None]:
    """Return the gate's certificate and key, its own made or renewed if need be."""
    from videostore.gate.certificates import ends_at

    settings = site.settings.gate
    if settings.plain_http:
        return None, None
    if settings.tls_certificate:
        certificate, key = site.path(settings.tls_certificate), site.path(settings.tls_key)
    else:
        own = own_certificate(site)
        own.renew(now=host_time())
        certificate, key = own.certificate, own.key
    telemetry.GATE_CERTIFICATE_ENDS.set(ends_at(certificate).timestamp())
    return certificate, key


def _provider(parts: Parts) -> Provider | None:
    """Return the provider of OpenID Connect that the settings name."""
    from videostore.gate import oidc

    gate = parts.site.settings.gate
    if gate.oidc is None:
        return None
    reference = gate.oidc.client_secret
    secret = resolve_secret(reference, root=parts.site.root) if reference else ""
    settings = oidc.Settings(
        issuer=gate.oidc.issuer,
        client_id=gate.oidc.client_id,
        client_secret=secret,
        scope=gate.oidc.scope,
        max_clock_skew=gate.oidc.max_clock_skew,
        redirect_uri=f"{gate.url.rstrip('/')}/v1/oidc/callback",
        ca_file=str(parts.site.path(gate.oidc.ca_file)) if gate.oidc.ca_file else "",
    )
    return oidc.Provider(settings, now=parts.clock.now)


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
                refused = code == PromiseBroken.exit_code  # the others go on: retention above all
                if code > 1 and not refused:  # it said why, and would say it again
                    sys.exit(code)
                log.error("role.died", role=role, exit_code=code)
                stop.wait(_REFUSED_SECONDS if refused else 1.0)
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
_REFUSED_SECONDS = 60
