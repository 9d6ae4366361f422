"""A small ONVIF device: says which streams it has (ONVIF Core and Media, SOAP 1.2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
    'xmlns:tds="http://www.onvif.org/ver10/device/wsdl" xmlns:trt="http://www.onvif.org/ver10/media/wsdl" '
    'xmlns:tt="http://www.onvif.org/ver10/schema" xmlns:ter="http://www.onvif.org/ver10/error">'
    "<s:Body>{body}</s:Body></s:Envelope>"
)
_FAULT = (
    "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>ter:{code}</s:Value></s:Subcode>"
    '</s:Code><s:Reason><s:Text xml:lang="en">{text}</s:Text></s:Reason></s:Fault>'
)
_OPEN = {"GetSystemDateAndTime", "GetCapabilities", "GetServices"}


class OnvifDevice:
    """Serves from a thread; a context manager. ``streams``: profile to ``(URL, codec, width, height)``."""

    def __init__(
        self, streams: Mapping[str, tuple[str, str, int, int]], *, user: str = "", password: str = ""
    ) -> None:
        self._streams, self._user, self._password = streams, user, password
        device = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, body = device._answer(request)
                data = _ENVELOPE.format(body=body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/soap+xml; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> OnvifDevice:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: str) -> tuple[int, str]:
        found = re.search(r"Body[^>]*>\s*<(?:\w+:)?(\w+)", request)
        operation = found[1] if found else ""
        if operation not in _OPEN and not self._authorised(request):
            return 400, _FAULT.format(code="NotAuthorized", text="Sender not authorized")
        match operation:
            case "GetSystemDateAndTime":
                return 200, _time(datetime.now(UTC))
            case "GetCapabilities":
                url = f"http://{self.address}/onvif"
                return 200, (
                    "<tds:GetCapabilitiesResponse><tds:Capabilities>"
                    f"<tt:Device><tt:XAddr>{url}/device_service</tt:XAddr></tt:Device>"
                    f"<tt:Media><tt:XAddr>{url}/media</tt:XAddr><tt:StreamingCapabilities/></tt:Media>"
                    "</tds:Capabilities></tds:GetCapabilitiesResponse>"
                )
            case "GetProfiles":
                profiles = "".join(_profile(name, *facts[1:]) for name, facts in self._streams.items())
                return 200, f"<trt:GetProfilesResponse>{profiles}</trt:GetProfilesResponse>"
            case "GetStreamUri":
                token = re.search(r"ProfileToken>([^<]+)<", request)
                url = self._streams[token[1]][0] if token else ""
                return 200, (
                    f"<trt:GetStreamUriResponse><trt:MediaUri><tt:Uri>{url}</tt:Uri>"
                    "<tt:InvalidAfterConnect>false</tt:InvalidAfterConnect>"
                    "<tt:InvalidAfterReboot>false</tt:InvalidAfterReboot><tt:Timeout>PT0S</tt:Timeout>"
                    "</trt:MediaUri></trt:GetStreamUriResponse>"
                )
            case _:
                return 400, _FAULT.format(code="ActionNotSupported", text="Optional action not implemented")

    def _authorised(self, request: str) -> bool:
        """Check a WS-Security UsernameToken 1.0: a digest (SHA-1) of nonce, creation and password."""
        if not self._user:
            return True
        found = {
            name: (re.search(rf"<(?:\w+:)?{name}(?:\s[^>]*)?>([^<]*)<", request) or [None, ""])[1] or ""
            for name in ("Username", "Password", "Nonce", "Created")
        }
        secret = base64.b64decode(found["Nonce"]) + (found["Created"] + self._password).encode()
        expected = base64.b64encode(hashlib.sha1(secret, usedforsecurity=False).digest()).decode()
        return found["Username"] == self._user and hmac.compare_digest(found["Password"], expected)


def _time(now: datetime) -> str:
    return (
        "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>NTP</tt:DateTimeType>"
        "<tt:DaylightSavings>false</tt:DaylightSavings><tt:UTCDateTime>"
        f"<tt:Time><tt:Hour>{now.hour}</tt:Hour><tt:Minute>{now.minute}</tt:Minute>"
        f"<tt:Second>{now.second}</tt:Second></tt:Time>"
        f"<tt:Date><tt:Year>{now.year}</tt:Year><tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day></tt:Date>"
        "</tt:UTCDateTime></tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>"
    )


def _profile(name: str, codec: str, width: int, height: int) -> str:
    return (
        f'<trt:Profiles token="{name}" fixed="true"><tt:Name>{name}</tt:Name>'
        f'<tt:VideoEncoderConfiguration token="{name}"><tt:Name>{name}</tt:Name><tt:UseCount>1</tt:UseCount>'
        f"<tt:Encoding>{codec}</tt:Encoding><tt:Resolution><tt:Width>{width}</tt:Width>"
        f"<tt:Height>{height}</tt:Height></tt:Resolution><tt:Quality>5</tt:Quality>"
        "<tt:SessionTimeout>PT60S</tt:SessionTimeout></tt:VideoEncoderConfiguration></trt:Profiles>"
    )
