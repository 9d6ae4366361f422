"""Drop folders: how files are named, when they were captured, and what of them is due.

What a file says of its time is a claim. The host knows when the file was complete (``received``), and no
footage is later than that: a claim that says otherwise is moved back if it is a little off, and not
believed if it is far off.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from zoneinfo import ZoneInfo

from videostore.domain.segment import KeyId
from videostore.durable import remove_file

REFUSED = ".refused"
SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".ts", ".avi"})
LITTLE_OFF = timedelta(minutes=5)
"""A claim this much after receipt is a clock that is a little fast."""


class Outcome(StrEnum):
    """What became of a dropped file. Stable: metrics and the names of directories."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    PAST_DEADLINE = "past-deadline"
    NO_TIME = "no-time"
    IN_FUTURE = "in-future"
    NO_CAMERA = "no-camera"
    NO_KEY = "no-key"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Pattern:
    """How a folder names its files, as ``{camera}/%Y-%m-%d/%H-%M-%S``: the path without its suffix.

    ``{camera}`` is the part that names the camera, ``*`` any text; the rest is as in ``datetime.strptime``,
    in ``zone``. Raises ValueError for a pattern that cannot be used.
    """

    text: str
    zone: ZoneInfo

    def __post_init__(self) -> None:
        if self.text.count("{camera}") != 1:
            raise ValueError("a pattern names {camera} once")
        self._expression()

    def read(self, path: str) -> tuple[str, datetime | None] | None:
        """Return the camera's part and the naive local time in ``path``, or None if it does not fit."""
        match = self._expression().fullmatch(path)
        if match is None:
            return None
        tokens = [f"%{token}" for token in _tokens(self.text)]
        if not tokens:
            return match["camera"], None
        values = [match[f"t{place}"] for place in range(len(tokens))]
        try:
            return match["camera"], datetime.strptime("\n".join(values), "\n".join(tokens))  # noqa: DTZ007
        except ValueError:
            return None

    def _expression(self) -> re.Pattern[str]:
        out, place = "", 0
        for part in re.split(r"(\{camera\}|\*|%.)", self.text):
            if part == "{camera}":
                out += r"(?P<camera>[^/]+)"
            elif part == "*":
                out += r"[^/]*"
            elif part.startswith("%"):
                if part[1] not in _TOKENS:
                    raise ValueError(f"{part} cannot stand in a pattern; these can: {', '.join(_TOKENS)}")
                out += f"(?P<t{place}>{_TOKENS[part[1]]})"
                place += 1
            else:
                out += re.escape(part)
        return re.compile(out)


_TOKENS: Mapping[str, str] = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{2}",
    "d": r"\d{2}",
    "j": r"\d{3}",
    "H": r"\d{2}",
    "M": r"\d{2}",
    "S": r"\d{2}",
    "f": r"\d{1,6}",
    "z": r"Z|[+-]\d{4}",
}


def _tokens(text: str) -> list[str]:
    return re.findall(r"%(.)", text)


def in_zone(local: datetime, zone: ZoneInfo, *, complete: datetime) -> datetime:
    """Return ``local`` in UTC; of the two meanings of an hour that a clock passes twice, the one nearer to
    ``complete``, the moment at which the file was."""
    if local.tzinfo is not None:
        return local.astimezone(UTC)
    meanings = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return min(meanings, key=lambda meaning: (abs(complete - meaning), meaning))


def judge(
    claims: Iterable[datetime | None],
    *,
    duration: timedelta,
    received: datetime,
    now: datetime,
    keep: timedelta,
) -> tuple[Outcome, datetime | None]:
    """Return TAKEN and the moment of the first frame, or why the file is not taken.

    ``claims`` are those that the file makes, the most trustworthy first; ``received`` is when it was
    complete.
    """
    start = next((claim for claim in claims if claim is not None), None)
    if start is None:
        return Outcome.NO_TIME, None
    latest = min(received, now) - duration
    if start > latest + LITTLE_OFF:
        return Outcome.IN_FUTURE, None
    start = min(start, latest)
    if now - start >= keep:
        return Outcome.PAST_DEADLINE, None
    return Outcome.TAKEN, start


# --- what lies there ---


@dataclass(frozen=True, slots=True)
class Folder:
    """A tree of files. One is complete when it did not change for ``settle``; ``look`` is how often the whole
    tree is looked at, for what the kernel did not tell (a network share tells nothing)."""

    name: str
    path: Path
    pattern: Pattern
    settle: timedelta
    look: timedelta

    def files(self) -> Iterator[Path]:
        """Yield all files in it, refused ones included, in order of their names."""
        for directory, directories, names in os.walk(self.path):
            directories.sort()
            for name in sorted(names):
                yield Path(directory) / name

    def waits(self, path: Path) -> bool:
        """Say whether a file is one to be taken: neither hidden, nor refused, nor a sidecar."""
        hidden = any(part.startswith(".") for part in path.relative_to(self.path).parts)
        return not hidden and not path.is_symlink() and path.suffix.lower() in SUFFIXES

    def claim(self, path: Path) -> tuple[str, datetime | None] | None:
        """Return what the name of a file says, refused or not: the camera's part, and its local time."""
        parts = path.relative_to(self.path).with_suffix("").parts
        return self.pattern.read("/".join(parts[2:] if parts[0] == REFUSED else parts))


class FolderHolding:
    """Holding: what lies in a folder, refused files included. Its hour is the earliest that it may be of.

    ``key_id`` returns the key for a camera's part of the name (empty: of no camera) and a moment."""

    def __init__(self, folder: Folder, *, key_id: Callable[[str, datetime], KeyId]) -> None:
        self.name = f"folder {folder.name}"
        self._folder = folder
        self._key_id = key_id

    def key_ids(self) -> Sequence[KeyId]:
        return sorted({key_id for key_id, _ in self._files()})

    def remove(self, key_id: KeyId) -> int:
        return sum(remove_file(path) for found, path in list(self._files()) if found == key_id)

    def _files(self) -> Iterator[tuple[KeyId, Path]]:
        for path in self._folder.files():
            with suppress(OSError):
                moment = received_at(path)
                claim = self._folder.claim(path)
                if claim is not None and claim[1] is not None:
                    moment = min(moment, in_zone(claim[1], self._folder.pattern.zone, complete=moment))
                moment = min(moment, sidecar_time(path) or moment)
                yield self._key_id(claim[0] if claim else "", moment), path


def received_at(path: Path) -> datetime:
    """Return when a file was complete: when its bytes or its name last changed, whichever says earlier."""
    status = path.stat()
    return datetime.fromtimestamp(min(status.st_mtime, status.st_ctime), UTC)


def sidecar_of(path: Path) -> Path:
    return path.with_suffix(".json")


def sidecar_time(path: Path) -> datetime | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = datetime.fromisoformat(json.loads(sidecar_of(path).read_bytes())["start"])
        return found.astimezone(UTC) if found.tzinfo else None
    return None
