"""A real Chromium, driven by the WebDriver protocol (www.w3.org/TR/webdriver2)."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

_OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1280,1000",
]


class Browser:
    """One window."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def open(self, url: str) -> None:
        self._ask("url", {"url": url})

    def run(self, script: str, *args: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self._ask("execute/sync", {"script": script, "args": list(args)})

    def screenshot(self, path: Path) -> None:
        answer = self._http.get("screenshot").json()["value"]
        path.write_bytes(base64.b64decode(answer))

    def _ask(self, command: str, body: dict[str, Any]) -> Any:
        answer = self._http.post(command, json=body).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer


@contextmanager
def chromium(driver: str, profile: Path, *, trusts: str = "") -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it whatever happens.

    ``trusts`` is the SHA-256 (base64) of the public key of a server whose authority it does not know.
    """
    command = [driver, "--port=0"]
    environment = {**os.environ, "HOME": str(profile)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            port = next(
                found[1]
                for line in process.stdout
                if (found := re.search(r"successfully on port (\d+)", line))
            )
            trust = [f"--ignore-certificate-errors-spki-list={trusts}"] if trusts else []
            options = {"args": [*_OPTIONS, *trust, f"--user-data-dir={profile}"]}
            capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
            url = f"http://127.0.0.1:{port}/session"
            answer = httpx.post(url, json={"capabilities": capabilities}, timeout=60).json()["value"]
            session = f"{url}/{answer['sessionId']}"
            with httpx.Client(base_url=session, timeout=60) as http:
                try:
                    yield Browser(http)
                finally:
                    ended = httpx.delete(session, timeout=60)  # chromedriver leaves its browser behind
                    assert ended.json()["value"] is None, ended.text
        finally:
            process.terminate()
