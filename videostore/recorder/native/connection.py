"""One RTSP connection: questions and answers while it is set up, then a stream of packets (RFC 2326).

While it is set up, whoever opens it waits for each answer. From PLAY on nobody waits: the loop feeds it what
arrives, and it writes keepalives and reports between.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from videostore.domain.errors import CameraNotRtsp, CameraRefused, CameraStreamInvalid, CameraUnreachable
from videostore.recorder.native import digest, rtsp
from videostore.recorder.native.interleaved import Interleaved, Receive

BUFFER = 1024 * 1024  # bytes; more than a message and a packet that are not whole yet
_UNSENT = 64 * 1024
_ATTEMPTS = 3


class Connection:
    """``url`` names the camera in messages; ``credentials`` are sent only when the camera asks for them."""

    def __init__(
        self, channel: socket.socket, url: str, credentials: tuple[str, str] | None, *, patience: float
    ) -> None:
        self._channel = channel
        self._url = url
        self._credentials = credentials
        self._deadline = time.monotonic() + patience
        self._buffer = memoryview(bytearray(BUFFER))
        self._channels: dict[int, Receive] = {}
        self._keep: list[Callable[[], None]] = []
        self._interleaved = Interleaved(self._channels, message=self._heard)
        self._tail = b""
        self._answers: list[rtsp.Message] = []
        self._asked: digest.Challenge | None = None
        self._uses = self._number = 0
        self._unsent = b""
        self._again: tuple[str, str] | None = None  # what was said last, until it was said twice
        self._live = False
        self.session = ""
        self.broken = ""
        """Why the camera ends the stream, empty while it does not."""
        self.full = False
        """Whether the last read took in all that it could, so that more may have come before it."""

    @property
    def skipped(self) -> int:
        return self._interleaved.skipped

    def fileno(self) -> int:
        return self._channel.fileno()

    def listen(self, channel: int, receive: Receive, keep: Callable[[], None] = lambda: None) -> None:
        """Have ``receive`` called with what comes on a channel, and ``keep`` before those bytes go."""
        self._channels[channel] = receive
        self._keep.append(keep)

    def free(self, *channels: int) -> bool:
        """Say whether nobody listens to these."""
        return not self._channels.keys() & set(channels)

    # --- while it is set up ---

    def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> rtsp.Message:
        """Return the answer, of success or redirection. Raises what the camera's refusal means."""
        for _ in range(_ATTEMPTS):
            self._say(method, url, headers or {})
            answer = self._wait()
            if answer.status != 401:
                break
            self._challenged(answer)
        if answer.status in {401, 403}:
            raise self._refused()
        if 400 <= answer.status < 500:
            raise CameraStreamInvalid(
                f"{self._url} has no such stream: {method} is answered by {answer.status}",
                hint="Look up the path in the camera's manual.",
            )
        if answer.status >= 500:
            raise self._gone(f"{method} is answered by {answer.status}")
        return answer

    def wait(self) -> None:
        """Wait for what comes next. Raises CameraUnreachable."""
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError("no answer in time")
            self._channel.settimeout(left)
            if not self.read(self._buffer):
                raise self._gone("it hung up")
        except OSError as error:
            raise self._gone(str(error)) from error

    def _wait(self) -> rtsp.Message:
        while True:
            while self._answers:
                answer = self._answers.pop(0)
                if answer.header("cseq") in {str(self._number), ""}:
                    return answer
            if self._interleaved.skipped:
                raise CameraNotRtsp(
                    f"{self._url} is not an RTSP server",
                    hint="Check the port: RTSP is usually 554, a web page 80 or 443.",
                )
            self.wait()

    def _challenged(self, answer: rtsp.Message) -> None:
        asked = digest.challenge(answer.headers.get("www-authenticate", []))
        if self._credentials is None or asked is None:
            raise self._refused()
        if self._asked is not None and not asked.stale and asked.nonce == self._asked.nonce:
            raise self._refused()
        if self._asked is not None and not asked.stale and self._uses == 1:
            raise self._refused()  # the first answer to a question was wrong: another would lock the camera
        self._asked, self._uses = asked, 0

    def _refused(self) -> CameraRefused:
        return CameraRefused(
            f"{self._url} refuses the user or password",
            hint="Put user:password in a file and name it with --credentials-file.",
        )

    def _gone(self, why: str) -> CameraUnreachable:
        return CameraUnreachable(
            f"{self._url} does not answer: {why}",
            hint="Check address, port, cable and that the camera is on.",
        )

    # --- from PLAY on ---

    def go_live(self) -> None:
        """From here on nobody waits for this connection."""
        self._live = True
        self._buffer = memoryview(b"")
        self._channel.setblocking(False)

    def read(self, buffer: memoryview) -> bool:
        """Take in what has arrived, through ``buffer``; return whether the camera is still there.

        Raises OSError, or what a receiver raises.
        """
        while True:
            kept = len(self._tail)
            buffer[:kept] = self._tail
            try:
                count = self._channel.recv_into(buffer[kept:])
            except (BlockingIOError, ssl.SSLWantReadError):
                self.full = False
                return True
            self.full = count == len(buffer) - kept
            if not count:
                return False
            data = buffer[: kept + count]
            done = self._interleaved.feed(data)
            for keep in self._keep:
                keep()
            self._tail = bytes(data[done:])
            if not (self._live and isinstance(self._channel, ssl.SSLSocket)):
                return True  # what is left of TLS lies where no poll sees it

    def say(self, method: str, url: str) -> None:
        """Ask without waiting; a refusal ends the stream, unless the password is to be said anew."""
        self._again = method, url
        self._say(method, url, {})

    def send(self, data: bytes) -> None:
        """Write ``data`` now, or as soon as there is room. Raises OSError if the camera reads nothing."""
        self._unsent += data
        if not self._live:
            self._channel.settimeout(max(0.1, self._deadline - time.monotonic()))
            self._channel.sendall(self._unsent)
            self._unsent = b""
            return
        with suppress(BlockingIOError, ssl.SSLWantWriteError):
            while self._unsent:
                self._unsent = self._unsent[self._channel.send(self._unsent) :]
        if len(self._unsent) > _UNSENT:
            raise TimeoutError("the camera reads nothing")

    def hang_up(self, control: str) -> None:
        """Say goodbye if that is possible at once, and close."""
        with suppress(OSError):
            if self._live and self.session:
                self._say("TEARDOWN", control, {})
        with suppress(OSError):
            self._channel.close()

    def _say(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        self._number += 1
        fields = {"CSeq": str(self._number), "User-Agent": "videostore", **headers}
        if self.session:
            fields["Session"] = self.session
        if self._asked is not None and self._credentials is not None:
            self._uses += 1
            fields["Authorization"] = digest.authorization(
                self._asked,
                self._credentials,
                method=method,
                url=url,
                count=self._uses,
                cnonce=secrets.token_hex(8),
            )
        try:
            self.send(rtsp.request(method, url, fields))
        except OSError as error:
            if self._live:
                raise
            raise self._gone(str(error)) from error

    def _heard(self, message: rtsp.Message) -> None:
        if message.method:
            known = message.method in {"OPTIONS", "GET_PARAMETER", "SET_PARAMETER"}
            status = "200 OK" if known else "501 Not Implemented"
            self.send(rtsp.answer(status, {"CSeq": message.header("cseq")}))
            if message.method in {"REDIRECT", "TEARDOWN", "ANNOUNCE"}:
                self.broken = f"it says {message.method}"
        elif not self._live:
            self._answers.append(message)
        elif message.status == 401:
            try:
                self._challenged(message)  # the nonce is used up
            except CameraRefused:
                self.broken = "it asks for another password"
                return
            again, self._again = self._again, None
            if again is not None:  # at once: before the next keepalive the session may have ended
                self._say(*again, {})
        elif message.status in {404, 454}:
            self.broken = "it ended the session"
