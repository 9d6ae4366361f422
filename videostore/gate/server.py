"""Serves the gate's API by uvicorn, in this process, until told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import uvicorn
from fastapi import FastAPI

from videostore.domain.errors import GateUnavailable

_GRACE_SECONDS = 5


def serve(
    api: FastAPI,
    *,
    host: str,
    port: int,
    certificate: Path | None = None,
    key: Path | None = None,
    started: Callable[[str], None],
    stop: Event,
) -> None:
    """Serve until ``stop`` is set. ``started`` is told the URL once the port is bound (0 takes a free one).

    Raises GateUnavailable if the port cannot be had or the certificate cannot be read.
    """
    config = uvicorn.Config(
        api,
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            config.load()
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
        while thread.is_alive() and not stop.wait(0.2):
            pass
        server.should_exit = True
        thread.join()
