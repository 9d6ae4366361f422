"""The host this runs on: what its kernel says about the time, and what its service manager wants to hear."""

from __future__ import annotations

import ctypes
import gc
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

_STA_UNSYNC = 0x40
_STATUS_OFFSET = 40  # bytes into struct timex of <sys/timex.h> on 64 bit: five fields stand before it
_TIMEX_BYTES = 512


def host_time() -> datetime:
    """Return the host's time, for stamps."""
    return datetime.now(UTC)


def clock_synchronised() -> bool | None:
    """Return whether NTP or PTP disciplines the kernel's clock, None if it does not say (adjtimex(2))."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    if adjtimex(timex) < 0:
        return None
    return not int.from_bytes(timex.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], "little") & _STA_UNSYNC


def keep_memory_whole() -> None:
    """Have a process of many threads leave few holes in its memory (mallopt(3), with glibc).

    Two arenas instead of eight a core, and whatever is as large as a frame in pages of its own, which go
    back when it is freed.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.mallopt(_M_MMAP_THRESHOLD, 64 * 1024)


_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # <malloc.h>


def settle() -> None:
    """Spare the garbage collector what is there once a process has started. A whole round over it holds up
    every thread: an answer of the gate took 75 ms more, one of forty."""
    gc.collect()
    gc.freeze()


def return_free_memory() -> None:
    """Give memory that is free back to the system (malloc_trim(3), where the C library is glibc).

    Each connection to a camera leaves holes of aligned buffers that glibc neither fills nor returns: about
    100 kB, which adds up over the reconnections of a year.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def notify(*lines: str) -> None:
    """Tell the service manager, if there is one: ``READY=1``, ``STOPPING=1``, … (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto("\n".join(lines).encode(), address)


def watchdog() -> Callable[[], None]:
    """Return what a loop calls each time round; the service manager restarts a process that stops doing so.

    WATCHDOG_USEC says how long it waits; it is told twice as often at most.
    """
    patience = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6
    told = 0.0

    def alive() -> None:
        nonlocal told
        if patience and time.monotonic() - told > patience / 4:
            told = time.monotonic()
            notify("WATCHDOG=1")

    return alive
