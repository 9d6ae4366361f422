"""The role that lets approved people look."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event as Stop
from threading import Thread

from videostore import telemetry
from videostore.app.endpoints import announce, asked_of, metrics_of
from videostore.app.host import host_time, settle
from videostore.app.keys import export_key, ledger_key, own_certificate, recorder_public_key
from videostore.app.parts import Parts, must_stand
from videostore.config.cameras import find_camera
from videostore.config.credentials import resolve_secret
from videostore.config.durations import split_address
from videostore.config.follow import Followed
from videostore.config.site import Site
from videostore.domain.camera import Camera
from videostore.domain.errors import VideostoreError
from videostore.domain.retention import Kind
from videostore.gate import casebook, oidc, oversight
from videostore.gate.api import create_api
from videostore.gate.certificates import ends_at
from videostore.gate.export import Unit
from videostore.gate.logins import Logins
from videostore.gate.server import serve
from videostore.gate.service import Gate
from videostore.keyring.master import try_out
from videostore.signing import SigningKey

log = telemetry.logger("app")


def run_gate(parts: Parts, stop: Stop) -> None:
    must_stand(parts)
    parts.must_have_the_newest_ledger()
    site, settings = parts.site, parts.site.settings.gate
    try_out(parts.master_key)
    parts.staff.seal_secrets()
    key = SigningKey.load(ledger_key(site.root))
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
        bookmarks=(casebook.bookmark(site.root / "gate", key), oversight.bookmark(site.root / "gate", key)),
    )
    listed = Followed(site.root / "cameras.yaml", site.cameras.all)

    def cameras() -> list[Camera]:
        return list(gate.oversight.identified(listed()))

    def oversee() -> None:
        gate.oversight.identified(listed())
        gate.oversight.look()

    api = create_api(gate, find_camera=lambda name: find_camera(cameras(), name), all_cameras=cameras)
    host, port = split_address(settings.listen)
    certificate, tls_key = _tls(site)
    Thread(target=_prepare, args=[gate], name="prepare", daemon=True).start()
    with metrics_of(site, "gate", asked=asked_of(parts, "gate")) as metrics:
        serve(
            api,
            host=host,
            port=port,
            certificate=certificate,
            key=tls_key,
            started=lambda url: announce(site, "gate", {"metrics": metrics, "gate": url}),
            stop=stop,
            beat=_each(certificate=_every(3600, lambda: _tls(site)), oversight=_every(5, oversee)),
        )
    gate.keep()


def _prepare(gate: Gate) -> None:
    """Do what takes minutes after an upgrade, while a service manager hears that the gate lives."""
    with suppress(VideostoreError):  # who asks is told
        gate.read()
    settle()


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


def _provider(parts: Parts) -> oidc.Provider | None:
    """Return the provider of OpenID Connect that the settings name."""
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
