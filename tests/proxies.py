"""A TCP proxy that does to a connection what networks, balancers and dying servers do."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
    """``endpoint`` is its URL; set ``fault`` for the connections that come from now on."""

    def __init__(self, upstream: str) -> None:
        where = urlsplit(upstream)
        self._upstream = (where.hostname, where.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = Event()
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.fault = Fault()
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
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
