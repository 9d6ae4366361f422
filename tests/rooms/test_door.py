"""Whoever makes the gate wait keeps nobody out: raw connections to a real server."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import pytest

from tests.rooms.test_gate import House
from tests.rooms.test_playback import listening
from tests.servers import until
from videostore.gate import door, server
from videostore.gate.certificates import OwnCertificate

LINE = b"GET /healthz HTTP/1.1\r\nHost: gate\r\n"
LARGE = b"GET /page/hls.light.min.js HTTP/1.1\r\nHost: gate\r\n\r\n"
IDLE = [  # what somebody sends who makes the gate wait
    b"",
    LINE,
    b"POST /v1/login HTTP/1.1\r\nHost: gate\r\nContent-Length: 9\r\n\r\n{",
    LINE + b"\r\n" + LINE,
    LARGE * 30,  # and reads no answer
]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    files = OwnCertificate("headquarters", ["127.0.0.1"], tmp_path_factory.mktemp("tls"))
    files.renew(now=datetime.now(UTC))
    return files


@pytest.mark.parametrize("tls", [False, True])
def test_idle_connections_keep_nobody_out(house, own, monkeypatch, tls):
    """Of each kind more than are kept; over TLS none of them ends its handshake."""
    monkeypatch.setattr(door, "WAITING", 40)
    monkeypatch.setattr(door, "AT_ONCE", 5)
    monkeypatch.setattr(server, "_CONNECTIONS", 80)
    monkeypatch.setattr(door, "HEADER_SECONDS", 600.0)
    how = {"certificate": own.certificate, "key": own.key} if tls else {}
    with listening(house.api(), **how) as url, ExitStack() as opened:
        for sent in [b""] if tls else IDLE:
            idle = [opened.enter_context(connect(url)) for _ in range(90)]
            for one in idle:
                with suppress(OSError):  # it may be closed already
                    one.sendall(sent)
            until(lambda: is_answered(url, own.authority), seconds=60, why=lambda: "an officer is kept out")
            assert is_closed(idle[0])


@pytest.mark.parametrize("before", [b"", LINE + b"\r\n"])
def test_a_header_that_does_not_end_is_not_waited_for(house, monkeypatch, before):
    monkeypatch.setattr(door, "HEADER_SECONDS", 0.2)
    with listening(house.api()) as url, connect(url) as slow:
        slow.sendall(before + LINE + b"X: ")
        assert is_closed(slow, meanwhile=b"x")


def is_answered(url, authority):
    """Whole requests are served first, some of which were sent by those who then wait."""
    with suppress(httpx.TransportError):
        return (
            httpx.get(
                f"{url}/healthz", verify=ssl.create_default_context(cafile=authority), timeout=60
            ).status_code
            == 200
        )


def connect(url):
    split = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect((split.hostname, split.port))
    return connection


def is_closed(connection, *, meanwhile=b""):
    """Say whether it comes to an end within half a minute, whatever it is sent ``meanwhile``."""
    connection.settimeout(0.05 if meanwhile else 30)
    for _ in range(600):
        try:
            connection.sendall(meanwhile)
            while connection.recv(1 << 20):
                pass
        except TimeoutError:
            if not meanwhile:
                return False
        except (ConnectionResetError, BrokenPipeError):
            return True
        else:
            return True
    return False
