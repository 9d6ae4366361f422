"""What a role shows outside: its metrics, ``/healthz``, ``/readyz``, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from videostore import telemetry
from videostore.app.host import notify
from videostore.app.ledger import restored_mark
from videostore.app.parts import Parts
from videostore.config.durations import split_address
from videostore.config.site import Site
from videostore.domain.errors import SiteError, VideostoreError
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, KeyId


def lacks(parts: Parts, role: str) -> str:
    """Say what keeps a role from doing its work, if anything does."""
    try:
        if restored_mark(parts.site.root).exists():
            return "the site is restored and not reconciled"
        doubt = parts.clock.read().doubt
        if doubt is not None and role != "recorder":
            return f"the clock is in doubt: {doubt.value}"
        if role == "recorder":
            period = parts.policy(Kind.VIDEO)().key_period
            parts.published(Kind.VIDEO).recipient(KeyId.covering(parts.clock.now(), period))
        else:
            parts.catalogue.key_ids(until=EPOCH)
    except VideostoreError as error:
        return str(error)
    return ""


def announce(site: Site, role: str, facts: Mapping[str, str]) -> None:
    site.announce(role, facts)
    notify("READY=1")


def asked_of(
    parts: Parts, role: str, hangs: Callable[[], str] = lambda: ""
) -> Mapping[str, Callable[[], str]]:
    return {"/healthz": hangs, "/readyz": lambda: hangs() or lacks(parts, role)}


@contextmanager
def metrics_of(
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
