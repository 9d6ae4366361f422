"""The gate's connections: whoever makes the gate wait cannot take the place of those who ask.

A connection *waits* while the gate is owed something on it: the handshake of TLS, a request that is whole,
or that its answer is read. Somebody may keep as many of them as a machine has ports. So no more than
``WAITING`` are kept, and the oldest that waits is closed for the next: who connects and asks at once is
served, however many are idle.
"""

from __future__ import annotations

import socket
from asyncio import BaseTransport, TimerHandle, Transport, get_running_loop
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from videostore import telemetry

WAITING = 200
"""Connections. A browser keeps six, a player two."""
AT_ONCE = 50
"""Connections that are taken before those taken before are looked at, or closed."""
HEADER_SECONDS = 10.0
"""Within which the first line and the headers of a request have arrived."""


class Door(socket.socket):
    """A socket that listens, and knows which of its connections wait; for the one thread that serves them."""

    def __init__(self, family: int) -> None:
        # Named as TCP, or asyncio leaves Nagle's delay on: 40 ms for each answer in two writes.
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._taken: dict[int, socket.socket] = {}  # by file number, the oldest first
        self._waiting: set[int] = set()
        self._now = 0

    def accept(self) -> tuple[socket.socket, Any]:
        if self._now == AT_ONCE:
            raise BlockingIOError
        connection, address = super().accept()
        if self._now == 0:
            get_running_loop().call_soon(self._rested)
        self._now += 1
        self._taken.pop(connection.fileno(), None)  # one that is closed, whose number this one got
        self._taken[connection.fileno()] = connection
        self.waits(connection.fileno())
        return connection, address

    def waits(self, number: int) -> None:
        """Note that the connection of this file number waits, and close the oldest if too many do."""
        if number in self._taken:
            self._waiting.add(number)
        if len(self._waiting) > WAITING:
            self._taken = {number: one for number, one in self._taken.items() if one.fileno() == number}
            self._waiting &= self._taken.keys()
        while len(self._waiting) > WAITING:
            oldest = next(number for number in self._taken if number in self._waiting)
            self._waiting.remove(oldest)
            telemetry.GATE_CONNECTIONS_CLOSED.inc()
            with suppress(OSError):
                self._taken.pop(oldest).shutdown(socket.SHUT_RDWR)

    def is_served(self, number: int) -> None:
        """Note that it waits no more: a whole request is there, and what was answered is read."""
        self._waiting.discard(number)

    def _rested(self) -> None:
        self._now = 0


class Caller(H11Protocol):
    """One connection over HTTP: says whether it waits. To be subclassed with the ``door`` it came by."""

    door: Door
    _late: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        assert isinstance(transport, Transport)
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_header(False)
        super().connection_lost(exc)

    def _look(self) -> None:
        asks_nothing = self.conn.their_state is h11.IDLE
        self._await_header(asks_nothing)
        number = self.transport.get_extra_info("socket").fileno()
        unread = self.flow.write_paused or self.transport.is_closing()
        if asks_nothing or unread or self.conn.their_state is h11.SEND_BODY:
            self.door.waits(number)
        else:
            self.door.is_served(number)

    def _await_header(self, awaited: bool) -> None:
        if awaited and self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        elif not awaited and self._late is not None:
            self._late.cancel()
            self._late = None
