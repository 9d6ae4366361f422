"""A TCP proxy that does to a connection what networks, balancers and dying servers do; and an HTTP proxy."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What happens to each connection; nothing by default.

    ``reply``: answered at once, and nothing goes on. ``cut_after``, ``cut_answer_after``: reset once so many
    bytes of requests, or of answers, went through. ``lose_answer``: the server does its work, and its answer
    is lost. ``alter``: changes what is sent. ``hang``: no answer at all.
    """

    reply: bytes = b""
    cut_after: int | None = None
    cut_answer_after: int | None = None
    lose_answer: bool = False
    alter: Callable[[bytes], bytes] = field(default=lambda data: data)
    hang: bool = False


class Proxy:
    """``endpoint`` is its URL; set ``fault`` for the connections that come from now on.

    ``connections`` counts them.
    """

    def __init__(self, upstream: str) -> None:
        where = urlsplit(upstream)
        self._upstream = (where.hostname, where.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = Event()
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.fault = Fault()
        self.connections = 0
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                Thread(target=self._serve, args=(client, self.fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        with suppress(OSError), client:
            if fault.reply:
                client.recv(65536)
                client.sendall(fault.reply)
                return
            with socket.create_connection(self._upstream) as server:
                back = Thread(target=self._answers, args=(server, client, fault), daemon=True)
                back.start()
                passed = 0
                while data := client.recv(65536):
                    passed += len(data)
                    if fault.cut_after is not None and passed > fault.cut_after:
                        _abort(client)
                        return
                    server.sendall(fault.alter(data))
                server.shutdown(socket.SHUT_WR)
                back.join()

    def _answers(self, server: socket.socket, client: socket.socket, fault: Fault) -> None:
        passed = 0
        with suppress(OSError):
            while data := server.recv(65536):
                if fault.hang:
                    self._over.wait()
                if fault.lose_answer and b"100 Continue" not in data:
                    break
                if fault.cut_answer_after is not None and passed + len(data) > fault.cut_answer_after:
                    client.sendall(data[: fault.cut_answer_after - passed])
                    break
                passed += len(data)
                client.sendall(data)
            else:
                client.shutdown(socket.SHUT_WR)
                return
            _abort(client)


def _abort(connection: socket.socket) -> None:
    """Have the connection reset as soon as it is closed, and whoever reads from it stop."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    running = Proxy(upstream)
    try:
        yield running
    finally:
        running.close()


class ForwardProxy(ThreadingHTTPServer):
    """Carries a request for any host to ``upstream``, and a tunnel to any host to ``tunnels``, both URLs.

    ``seen`` has what was asked of it: method, target and headers.
    """

    daemon_threads = True

    def __init__(self, upstream: str, tunnels: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.upstream, self.tunnels = urlsplit(upstream), urlsplit(tunnels)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.host = f"127.0.0.1:{self.server_address[1]}"


class _Forwarding(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ForwardProxy

    def _forward(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers))
        body = self.rfile.read(int(headers.get("content-length", 0)))
        url = urlsplit(self.path)
        onward = HTTPConnection(self.server.upstream.netloc)
        passed = {
            name: value
            for name, value in headers.items()
            if not name.startswith("proxy-") and name != "expect"
        }
        onward.request(self.command, url._replace(scheme="", netloc="").geturl(), body or None, passed)
        answer = onward.getresponse()
        data = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        onward.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - http.server names them

    def do_CONNECT(self) -> None:
        self.server.seen.append(
            (self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        )
        self.send_response_only(200)
        self.end_headers()
        where = self.server.tunnels
        with suppress(OSError), socket.create_connection((where.hostname, where.port)) as server:
            Thread(target=_pour, args=(server, self.connection), daemon=True).start()
            _pour(self.connection, server)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def forward_proxy(upstream: str, tunnels: str) -> Iterator[ForwardProxy]:
    with ForwardProxy(upstream, tunnels) as running:
        Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield running
        running.shutdown()
