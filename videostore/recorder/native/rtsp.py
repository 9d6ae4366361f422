"""Messages of RTSP 1.0 (RFC 2326): written, and read as cameras write them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST_HEAD, LONGEST_BODY = 16 * 1024, 256 * 1024  # bytes
_END = re.compile(rb"\r?\n\r?\n")


class Malformed(ValueError):
    """What came is no RTSP message."""


@dataclass(frozen=True, slots=True)
class Message:
    """An answer (``status`` is set) or a request of the camera (``method`` is). Names of ``headers`` are in
    lower case; what came more than once is there as often."""

    status: int
    method: str
    headers: Mapping[str, list[str]]
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return the first header of that name, empty if there is none."""
        return next(iter(self.headers.get(name, ())), "")


def request(method: str, url: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {url} RTSP/1.0\r\n{lines}\r\n".encode()


def answer(status: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"RTSP/1.0 {status}\r\n{lines}\r\n".encode()


def take(data: bytes) -> tuple[Message, int] | None:
    """Return the message that ``data`` begins with and its length in bytes, None if it is not whole yet.

    Raises Malformed if none begins there, or one that is too long to be true.
    """
    end = _END.search(data, 0, LONGEST_HEAD)
    if end is None:
        if len(data) >= LONGEST_HEAD or not _may_begin(data):
            raise Malformed("this is no RTSP message")
        return None
    status, method, headers = _head(data[: end.start()].decode("latin-1"))
    length = _content_length(headers)
    if len(data) < end.end() + length:
        return None
    return Message(status, method, headers, bytes(data[end.end() : end.end() + length])), end.end() + length


_BEGINNING = re.compile(rb"RTSP/\d|[A-Z_]{3,16} ")
_PART = re.compile(rb"R(T(S(P(/\d?)?)?)?)?|[A-Z_]{1,16}")


def _may_begin(data: bytes) -> bool:
    return bool(_BEGINNING.match(data)) or (len(data) < 17 and bool(_PART.fullmatch(data)))


def _head(text: str) -> tuple[int, str, dict[str, list[str]]]:
    first, *lines = re.split(r"\r?\n", text)
    if found := re.match(r"RTSP/\d\.\d\s+(\d{3})\b", first, re.ASCII):
        status, method = int(found[1]), ""
    elif found := re.match(r"([A-Z_]{3,16}) \S+ RTSP/\d\.\d\s*$", first, re.ASCII):
        status, method = 0, found[1]
    else:
        raise Malformed("this is no RTSP message")
    headers: dict[str, list[str]] = {}
    last: list[str] | None = None
    for line in lines:
        if line[:1] in {" ", "\t"} and last:
            last[-1] += f" {line.strip()}"  # a folded line goes on
            continue
        name, colon, value = line.partition(":")
        if colon:
            last = headers.setdefault(name.strip().lower(), [])
            last.append(value.strip())
    return status, method, headers


def _content_length(headers: Mapping[str, list[str]]) -> int:
    said = next(iter(headers.get("content-length", ())), "0")
    if not re.fullmatch(r"\d{1,7}", said, re.ASCII) or int(said) > LONGEST_BODY:
        raise Malformed("a message says that it is longer than any is")
    return int(said)


def session(message: Message) -> tuple[str, float]:
    """Return what a SETUP answer says of its session: identifier, and seconds until it ends unused (section
    12.37: 60 if it does not say)."""
    identifier, _, rest = message.header("session").partition(";")
    found = re.search(r"timeout\s*=\s*(\d{1,6})", rest, re.ASCII | re.IGNORECASE)
    return identifier.strip(), float(found[1]) if found else 60.0


def channels(message: Message) -> tuple[int, int] | None:
    """Return the channels of RTP and RTCP that a SETUP answer grants, None if it is not interleaved."""
    found = re.search(
        r"interleaved\s*=\s*(\d{1,3})(?:\s*-\s*(\d{1,3}))?",
        message.header("transport"),
        re.ASCII | re.IGNORECASE,
    )
    if found is None:
        return None
    first = int(found[1])
    second = int(found[2]) if found[2] else first + 1
    return (first, second) if first < 256 and second < 256 and first != second else None
