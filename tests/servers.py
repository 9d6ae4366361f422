"""Real servers for the tests: SeaweedFS, PostgreSQL and Prometheus, on loopback, gone with the test run."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import boto3
import httpx
import trustme
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from videostore.store.bucket import Bucket
from videostore.store.rights import ROLES
from videostore.store.rights import seaweedfs as seaweedfs_config

POSTGRESQL_LOGIN = ("tester", "postgres-secret")
ACCESS, SECRET = "test-access", "test-secret"
CONFIGURED = "configured"
DOMAIN = "s3.example.test"
"""The buckets of SeaweedFS are host names under it; nobody resolves them."""
ROLE_KEYS = {role: (f"{role}-access", f"{role}-secret") for role in ROLES}
_START_SECONDS = 90
_FIRST_PORT, _PORT_COUNT = 10_100, 12_000
_PORTS = (_FIRST_PORT + number % _PORT_COUNT for number in count(os.getpid() * 211 % _PORT_COUNT, 2))


@dataclass(frozen=True)
class S3Server:
    """``stop`` ends it for good; ``shell`` runs commands of ``weed shell``, a line each, and returns what
    they said. ``directory`` is its disk. Over TLS, the authority of ``ca_file`` vouches for localhost, DOMAIN
    and the buckets under it."""

    endpoint: str
    tls_endpoint: str
    ca_file: str
    stop: Callable[[], None]
    shell: Callable[[str], str]
    directory: Path

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60),
        )

    def as_admin(self, bucket: str) -> Bucket:
        return Bucket(bucket, endpoint=self.endpoint, credentials=(ACCESS, SECRET))

    def bucket(self, name: str) -> str:
        self.client().create_bucket(Bucket=name)
        return name


def free_ports(wanted: int) -> list[int]:
    """Return ports nobody listens on. SeaweedFS adds 10000 to a port for gRPC: both are below 32768, from
    where Linux takes those of connections, which come at any moment.

    Processes look from places far apart: two that look at the same moment would find the same ones. Nor is
    one returned twice: a server may not listen yet. OpenBao takes the next one too.
    """
    found: list[int] = []
    for port in _PORTS:
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found.append(port)
        if len(found) == wanted:
            return found
    raise AssertionError("they never end")


def until(what: Callable[[], bool], *, seconds: float, why: Callable[[], str] = lambda: "") -> None:
    """Poll until ``what`` is true. Raises TimeoutError with ``why``."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {why()}")
        time.sleep(0.05)


@contextmanager
def seaweedfs(directory: Path, *options: str) -> Iterator[S3Server]:
    """Run a SeaweedFS with its S3 gateway and an administrator, ACCESS and SECRET.

    Its configuration also has the roles of the bucket CONFIGURED, as `store provision` writes them.
    """
    weed = Path(sys.executable).with_name("weed")
    identity = {
        "name": "admin",
        "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    configured = seaweedfs_config(CONFIGURED, ROLE_KEYS)
    configured["identities"].append(identity)
    (directory / "s3.json").write_text(json.dumps(configured))
    authority, ca_file, key_file = trustme.CA(), directory / "ca.pem", directory / "s3.pem"
    authority.cert_pem.write_to_path(ca_file)
    issued = authority.issue_cert("localhost", DOMAIN, f"*.{DOMAIN}")
    issued.private_key_and_cert_chain_pem.write_to_path(key_file)
    master, volume, filer, s3, tls = free_ports(5)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [weed, "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
             f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}",
             f"-s3.config={directory / 's3.json'}", "-master.telemetry=false", "-volume.max=3000",
             f"-s3.domainName={DOMAIN}", f"-s3.port.https={tls}",
             f"-s3.cert.file={key_file}", f"-s3.key.file={key_file}",
             "-s3.iam.readOnly=false", "-s3.port.iceberg=0", "-s3.port.lance=0", *options],
            stdout=log, stderr=log, cwd=directory,
        )  # fmt: skip

    def stop() -> None:
        process.kill()
        process.wait()

    def shell(command: str) -> str:
        done = subprocess.run(
            [weed, "shell", f"-master=127.0.0.1:{master}", f"-filer=127.0.0.1:{filer}"],
            input=f"{command.format(s3=f'127.0.0.1:{s3 + 10_000}')}\n",
            capture_output=True, text=True, check=True, cwd=directory,
        )  # fmt: skip
        return done.stdout + done.stderr

    server = S3Server(
        f"http://127.0.0.1:{s3}", f"https://localhost:{tls}", str(ca_file), stop, shell, directory
    )

    def ready() -> bool:
        try:
            if "ready" not in [one["Name"] for one in server.client().list_buckets()["Buckets"]]:
                server.bucket("ready")
            server.client().put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            if process.poll() is not None:
                raise RuntimeError((directory / "log").read_text()[-2000:]) from None
            return False
        return True

    try:
        until(ready, seconds=_START_SECONDS, why=(directory / "log").read_text)
        yield server
    finally:
        stop()


@contextmanager
def openbao(directory: Path) -> Iterator[tuple[str, str]]:
    """Run an OpenBao with a transit engine; return the URL of the engine and a token."""
    (port,) = free_ports(1)
    token, url = secrets.token_hex(16), f"http://127.0.0.1:{port}/v1"
    environment = {**os.environ, "BAO_DEV_ROOT_TOKEN_ID": token, "HOME": str(directory)}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("bao"), "server", "-dev", "-dev-no-store-token",
             f"-dev-listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log, cwd=directory, env=environment,
        )  # fmt: skip

    def ready() -> bool:
        try:
            made = httpx.post(
                f"{url}/sys/mounts/transit", json={"type": "transit"}, headers={"X-Vault-Token": token}
            )
        except httpx.HTTPError:
            return False
        return made.is_success

    try:
        until(ready, seconds=_START_SECONDS, why=(directory / "log").read_text)
        yield f"{url}/transit", token
    finally:
        process.kill()
        process.wait()


@contextmanager
def postgresql(directory: Path) -> Iterator[str]:
    """Run a PostgreSQL and yield ``postgresql://HOST:PORT/``; POSTGRESQL_LOGIN gets in.

    It sorts text as English does, as an operator's database may: byte order has to be asked for.
    """
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    data = directory / "data"
    (port,) = free_ports(1)
    user: dict[str, object] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("postgres")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (directory, *directory.parents):
            if path.stat().st_uid == 0 and path != Path("/"):
                path.chmod(path.stat().st_mode | 0o011)
        shutil.chown(directory, nobody.pw_uid, nobody.pw_gid)
    (directory / "password").write_text(POSTGRESQL_LOGIN[1])
    (directory / "password").chmod(0o644)
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", POSTGRESQL_LOGIN[0], "-A", "scram-sha-256", "--no-sync",
         f"--pwfile={directory / 'password'}", "-E", "UTF8", "--locale=C.UTF-8",
         "--locale-provider=icu", "--icu-locale=en-US"],
        check=True, capture_output=True, cwd=directory, **user,
    )  # fmt: skip
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(directory)],
            stdout=log, stderr=log, cwd=directory, **user,
        )  # fmt: skip

    def ready() -> bool:
        done = subprocess.run(
            [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True, check=False
        )
        return done.returncode == 0

    try:
        until(ready, seconds=_START_SECONDS, why=(directory / "log").read_text)
        yield f"postgresql://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def prometheus(directory: Path, config: str) -> Iterator[str]:
    """Run a Prometheus and yield its URL."""
    (directory / "prometheus.yml").write_text(config)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={directory / 'prometheus.yml'}",
             f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log, cwd=directory,
        )  # fmt: skip

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/-/ready").is_success
        except httpx.TransportError:
            return False

    try:
        until(ready, seconds=_START_SECONDS, why=(directory / "log").read_text)
        yield url
    finally:
        process.terminate()
        process.wait()
