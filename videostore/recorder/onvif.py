"""Asks a camera by ONVIF which streams it has (ONVIF Core and Media specifications), by the onvif library."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx
from aiohttp import ClientError
from onvif import ONVIFCamera, ONVIFError
from wsdiscovery import QName
from wsdiscovery.discovery import ThreadedWSDiscovery
from zeep.exceptions import Error as SoapError

from videostore.domain.errors import CameraRefused, CameraStreamInvalid, CameraUnreachable

_PATIENCE_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Offer:
    """A stream that a camera offers. ``url`` has no user or password."""

    profile: str
    codec: str
    width_px: int
    height_px: int
    url: str


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A camera that answered. ``address`` is ``HOST[:PORT]``, ``name`` what it calls itself."""

    address: str
    name: str


def discover(wait: timedelta) -> list[Found]:
    """Ask the network (WS-Discovery: UDP multicast, it reaches the own segment) which cameras there are."""
    discovery = ThreadedWSDiscovery()
    try:
        discovery.start()
        kind = QName("http://www.onvif.org/ver10/network/wsdl", "NetworkVideoTransmitter")
        services = discovery.searchServices(types=[kind], timeout=wait.total_seconds())
    except OSError as error:
        raise CameraUnreachable(
            f"the network cannot be asked: {error}",
            hint="Discovery needs a network interface that multicasts.",
        ) from error
    finally:
        discovery.stop()
    found = set()
    for service in services:
        names = [str(scope).rpartition("/")[2] for scope in service.getScopes() if "/name/" in str(scope)]
        for url in service.getXAddrs():
            host = urlsplit(url).netloc
            if host and "[" not in host:
                found.add(Found(host.removesuffix(":80"), unquote(names[0]) if names else ""))
    return sorted(found)


def streams(address: str, credentials: tuple[str, str] | None) -> list[Offer]:
    """Return the video streams of the camera at ``HOST[:PORT]``, the largest picture first.

    Raises CameraUnreachable, CameraRefused or CameraStreamInvalid.
    """
    host, _, port = address.rpartition(":") if address.count(":") == 1 else (address, "", "80")
    try:
        found = asyncio.run(
            asyncio.wait_for(_ask(host, int(port), *(credentials or ("", ""))), _PATIENCE_SECONDS)
        )
    except ValueError as error:
        raise CameraUnreachable(f"{address!r} is not HOST or HOST:PORT", hint="Give an address.") from error
    except (ONVIFError, SoapError) as error:
        if "authoriz" in str(error).lower() or "unauthorized" in str(error).lower():
            raise CameraRefused(
                f"{address} refuses the user or password",
                hint="ONVIF users are often others than those of the web page; look there for both.",
            ) from None
        raise CameraStreamInvalid(
            f"{address} does not answer as ONVIF asks: {error}", hint="Give the rtsp:// URL instead."
        ) from None
    except (OSError, TimeoutError, ClientError, httpx.HTTPError) as error:
        raise CameraUnreachable(
            f"{address} does not answer: {str(error) or type(error).__name__}",
            hint="Check address and port, and that ONVIF is switched on in the camera.",
        ) from None
    if not found:
        raise CameraStreamInvalid(f"{address} offers no video", hint="Give the rtsp:// URL instead.")
    return sorted(found, key=lambda one: one.width_px * one.height_px, reverse=True)


async def _ask(host: str, port: int, user: str, password: str) -> list[Offer]:
    camera = ONVIFCamera(host, port, user, password, adjust_time=True)
    try:
        await camera.update_xaddrs()
        media = await camera.create_media_service()
        offers = []
        for profile in await media.GetProfiles():
            encoder = profile.VideoEncoderConfiguration
            if encoder is None:
                continue
            setup = {"Stream": "RTP-Unicast", "Transport": {"Protocol": "RTSP"}}
            answer = await media.GetStreamUri({"StreamSetup": setup, "ProfileToken": profile.token})
            size = encoder.Resolution
            offers.append(Offer(profile.token, encoder.Encoding, size.Width, size.Height, _open(answer.Uri)))
        return offers
    finally:
        await camera.close()


def _open(url: str) -> str:
    parts = urlsplit(url.strip())
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
