"""A real provider of OpenID Connect for the tests: Glewlwyd, on loopback, with a database of its own."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from joserfc.jwk import RSAKey

from tests.servers import free_ports, until

CLIENT, SECRET, PASSWORD = "videostore", "a client's secret", "correct horse battery"
CALLBACK = "https://testserver/v1/oidc/callback"
_DATABASE = Path("/usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz")
_CONFIGURATION = """\
port = {port}
bind_address = "127.0.0.1"
external_url = "http://127.0.0.1:{port}"
login_url = "login.html"
api_prefix = "api"
log_mode = "file"
log_level = "ERROR"
log_file = "{directory}/log"
cookie_domain = "127.0.0.1"
cookie_secure = false
session_expiration = 2419200
session_key = "SESSION"
admin_scope = "g_admin"
profile_scope = "g_profile"
user_module_path = "/usr/lib/glewlwyd/user"
user_middleware_module_path = "/usr/lib/glewlwyd/user_middleware"
client_module_path = "/usr/lib/glewlwyd/client"
user_auth_scheme_module_path = "/usr/lib/glewlwyd/scheme"
plugin_module_path = "/usr/lib/glewlwyd/plugin"
use_secure_connection = 0
static_files_path = "/usr/share/glewlwyd/webapp/"
static_files_mime_types = ({{ extension = ".html"; mime_type = "text/html"; }});
hash_algorithm = "SHA512"
database = {{ type = "sqlite3"; path = "{directory}/db"; }};
"""
_PLUGIN = {
    "jwks-show": True, "jwt-type": "rsa", "jwt-key-size": "256", "access-token-duration": 3600,
    "refresh-token-duration": 3600, "code-duration": 600, "refresh-token-rolling": False,
    "allow-non-oidc": False, "auth-type-code-enabled": True, "auth-type-implicit-enabled": False,
    "auth-type-password-enabled": False, "auth-type-client-enabled": False, "auth-type-device-enabled": True,
    "auth-type-refresh-enabled": False, "device-authorization-expiration": 600,
    "device-authorization-interval": 1, "pkce-allowed": True, "pkce-required": True,
    "pkce-method-plain-allowed": False, "subject-type": "public", "allowed-scope": ["openid"],
    "address-claim": {"type": "no"}, "claims": [],
    "name-claim": "no", "email-claim": "no", "scope-claim": "no",
}  # fmt: skip


def is_installed() -> bool:
    return shutil.which("glewlwyd") is not None and _DATABASE.exists()


class Glewlwyd:
    """The provider, as its administrator and its users reach it."""

    def __init__(self, address: str) -> None:
        self.issuer = f"{address}/api/oidc"
        self._api = f"{address}/api"
        self._admin = httpx.Client(trust_env=False, timeout=60)

    def set_up(self) -> None:
        """Make the plugin of OpenID Connect, a client, and the user alice."""
        self._ask(self._admin, "POST", "/auth/", {"username": "admin", "password": "password"})
        self._ask(self._admin, "POST", "/mod/plugin/", self._plugin())
        self._ask(self._admin, "POST", "/client/", self._client(CALLBACK))
        self._ask(self._admin, "POST", "/user/", {
            "username": "alice", "password": PASSWORD, "enabled": True, "scope": ["openid", "g_profile"],
        })  # fmt: skip

    def close(self) -> None:
        self._admin.close()

    def send_back_to(self, callback: str) -> None:
        """Send browsers back to another gate."""
        self._ask(self._admin, "PUT", f"/client/{CLIENT}", self._client(callback))

    def rotate_keys(self) -> None:
        """Sign with a new key, and forget the old one."""
        self._ask(self._admin, "PUT", "/mod/plugin/oidc", self._plugin())
        self._ask(self._admin, "PUT", "/mod/plugin/oidc/reset/", {})

    def agree(self, address: str) -> str:
        """Open ``address`` as alice, who agrees. Returns where her browser is sent."""
        with httpx.Client(trust_env=False, timeout=60) as browser:
            self._ask(browser, "POST", "/auth/", {"username": "alice", "password": PASSWORD})
            self._ask(browser, "PUT", f"/auth/grant/{CLIENT}", {"scope": "openid"})
            return browser.get(f"{address}&g_continue=").headers["location"]

    def _client(self, callback: str) -> dict[str, object]:
        return {
            "client_id": CLIENT, "name": CLIENT, "enabled": True, "confidential": True,
            "client_secret": SECRET, "redirect_uri": [callback], "scope": ["openid"],
            "authorization_type": ["code", "device_authorization"],
            "token_endpoint_auth_method": ["client_secret_basic"],
        }  # fmt: skip

    def _plugin(self) -> dict[str, object]:
        key = RSAKey.generate_key(2048)
        key_id = key.thumbprint()
        keys = {"keys": [{**key.as_dict(private=True), "kid": key_id, "alg": "RS256"}]}
        parameters = {**_PLUGIN, "iss": self.issuer, "jwks-private": json.dumps(keys)}
        return {"module": "oidc", "name": "oidc", "display_name": "oidc", "order_rank": 0, "readonly": False,
                "parameters": parameters}  # fmt: skip

    def _ask(self, client: httpx.Client, method: str, path: str, body: object) -> None:
        client.request(method, self._api + path, json=body).raise_for_status()


@contextmanager
def glewlwyd(directory: Path) -> Iterator[Glewlwyd]:
    """Run a provider until the end of the block."""
    (port,) = free_ports(1)
    with sqlite3.connect(directory / "db") as database:
        database.executescript(gzip.decompress(_DATABASE.read_bytes()).decode())
    configuration = directory / "conf"
    configuration.write_text(_CONFIGURATION.format(port=port, directory=directory))
    process = subprocess.Popen(["glewlwyd", f"--config-file={configuration}"], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/config", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        until(answers, seconds=60)
        provider = Glewlwyd(address)
        provider.set_up()
        yield provider
        provider.close()
    finally:
        process.terminate()
        process.wait()
