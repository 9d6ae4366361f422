"""What a camera says of its streams: SDP, as cameras really write it. Pure.

Sources: RFC 8866 (SDP), RFC 2326 appendix C (its use in RTSP), RFC 3551 section 6 (static payload types).
A line that means nothing is passed over; what is missing is left to whoever needs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

PROFILES = frozenset({"RTP/AVP", "RTP/AVPF", "RTP/AVP/TCP"})
"""Packets as they are, not encrypted."""
_STATIC = {0: ("PCMU", 8000), 8: ("PCMA", 8000), 26: ("JPEG", 90_000)}


@dataclass(frozen=True, slots=True)
class Media:
    """One stream of a camera. ``encoding`` is in upper case, ``parameters`` (fmtp) have names in lower case;
    ``control`` is the URL to set it up by."""

    kind: str
    profile: str
    payload_type: int
    encoding: str
    clock_hz: int
    channels: int
    parameters: Mapping[str, str]
    control: str


@dataclass(frozen=True, slots=True)
class Description:
    """``control`` is the URL that all streams are played by."""

    control: str
    media: list[Media]


@dataclass(slots=True)
class _Section:
    kind: str
    profile: str
    payload_types: list[int]
    control: str = ""
    maps: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    parameters: dict[int, dict[str, str]] = field(default_factory=dict)


def parse(text: str, *, base: str) -> Description:
    """Take a description apart; ``base`` is the URL that its control URLs are relative to."""
    control, sections = "*", list[_Section]()
    for line in re.split(r"[\r\n]+", text):
        name, _, value = line.strip().partition("=")
        if name == "m":
            if (section := _section(value)) is not None:
                sections.append(section)
        elif name == "a" and value.startswith("control:"):
            if sections:
                sections[-1].control = value[8:].strip()
            else:
                control = value[8:].strip()
        elif name == "a" and sections:
            _attribute(sections[-1], value)
    together = _joined(base, control)
    return Description(together, [_media(one, together) for one in sections])


def _section(value: str) -> _Section | None:
    words = value.split()
    if len(words) < 4:
        return None
    types = [int(word) for word in words[3:] if word.isascii() and word.isdigit() and int(word) < 128]
    return _Section(words[0].lower(), words[2].upper(), types) if types else None


def _attribute(section: _Section, value: str) -> None:
    if found := re.match(
        r"rtpmap:\s*(\d{1,3})\s+([^/\s]+)\s*/\s*(\d{1,9})(?:\s*/\s*(\d{1,2}))?", value, re.ASCII
    ):
        section.maps[int(found[1])] = found[2].upper(), int(found[3]), int(found[4] or 1)
    elif found := re.match(r"fmtp:\s*(\d{1,3})\s+(.*)", value, re.ASCII):
        pairs = (part.partition("=") for part in found[2].split(";"))
        section.parameters[int(found[1])] = {
            name.strip().lower(): text.strip() for name, _, text in pairs if name.strip()
        }


def _media(section: _Section, base: str) -> Media:
    """Several payload types are alternatives: the first that is known by name is the camera's choice."""
    named = {kind: (*known, 1) for kind, known in _STATIC.items()} | section.maps
    chosen = next((one for one in section.payload_types if one in named), section.payload_types[0])
    encoding, clock_hz, channels = named.get(chosen, ("", 0, 1))
    return Media(
        section.kind,
        section.profile,
        chosen,
        encoding,
        clock_hz,
        channels,
        section.parameters.get(chosen, {}),
        _joined(base, section.control or "*"),
    )


def _joined(base: str, control: str) -> str:
    """RFC 2326, C.1.1: relative to the base, which may lack its last slash; a query stays where it is."""
    if control == "*" or not control:
        return base
    if re.match(r"rtsps?://", control, re.IGNORECASE):
        return control
    return f"{base.removesuffix('/')}/{control.removeprefix('/')}"
