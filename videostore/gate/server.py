"""Serves the gate's API by uvicorn, in this process, until told to stop."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import uvicorn
from fastapi import FastAPI

from videostore import telemetry
from videostore.domain.errors import GateUnavailable
from videostore.gate.door import Caller, Door

log = telemetry.logger("gate")

_GRACE_SECONDS = 5
_BEAT_SECONDS = 0.2
_CONNECTIONS = 600
"""Beyond which requests are answered by 503: those that wait, are served, or are closed and not gone yet."""
_HEADER_BYTES = 32 * 1024


def serve(
    api: FastAPI,
    *,
    host: str,
    port: int,
    certificate: Path | None = None,
    key: Path | None = None,
    started: Callable[[str], None],
    stop: Event,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Serve until ``stop`` is set. ``started`` is told the URL once the port is bound (0 takes a free one).

    ``beat`` is called now and then; a certificate that was replaced meanwhile is used from then on.
    Raises GateUnavailable if the port cannot be had or the certificate cannot be read.
    """
    with Door(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:

        class Visitor(Caller):
            door = listener

        config = uvicorn.Config(
            api,
            loop="asyncio",  # not what else is installed: the door's own accept is called
            http=Visitor,
            log_config=None,
            access_log=False,
            server_header=False,
            # A client is not believed its address; without TLS a proxy of this machine tells it.
            proxy_headers=certificate is None,
            forwarded_allow_ips="127.0.0.1",
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()  # before anybody is told that it does
            config.load()
            if config.ssl is not None:
                config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        except OSError as error:
            raise GateUnavailable(
                f"the gate cannot listen on {host}:{port}: {error}",
                hint="Choose another `gate.listen`, or correct tls_certificate and tls_key.",
            ) from error
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, args=[[listener]], name="gate", daemon=True)
        thread.start()
        name = f"[{host}]" if ":" in host else host
        started(f"{'https' if certificate else 'http'}://{name}:{listener.getsockname()[1]}")
        files = _Files(config, certificate, key)
        while thread.is_alive() and not stop.wait(_BEAT_SECONDS):
            beat()
            files.follow()
        server.should_exit = True
        thread.join()


class _Files:
    """A certificate's files: loaded again when they were replaced, for connections to come."""

    def __init__(self, config: uvicorn.Config, certificate: Path | None, key: Path | None) -> None:
        self._config, self._certificate, self._key = config, certificate, key
        self._seen = self._changed()

    def follow(self) -> None:
        changed = self._changed()
        if self._certificate is None or self._config.ssl is None or changed == self._seen:
            return
        self._seen = changed
        try:
            self._config.ssl.load_cert_chain(self._certificate, self._key)
        except OSError as error:  # half replaced: the next change is looked at again
            log.warning("certificate.unreadable", error=str(error))

    def _changed(self) -> list[int]:
        times = []
        for path in (self._certificate, self._key):
            with suppress(OSError):
                times.append(path.stat().st_mtime_ns if path else 0)
        return times
