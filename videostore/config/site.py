"""A site: one directory with everything that belongs to one premises.

::

    videostore.yaml            settings
    cameras.yaml               cameras, by UUID
    policies/                  retention.yaml, access.yaml, notice/: reviewed by the responsible person
    secrets/                   credentials of cameras and stores (0700)
    keyring/  presence-keys/   hour keys of video and of entry/exit records
    spool/ store/              sealed bytes
    catalogue.db               facts of segments
    ledger/ staff/             proof and people
    tls/                       the gate's certificate and its authority, which clients trust
    run/                       what the running roles say of themselves
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from videostore.config.cameras import CameraList, write_cameras
from videostore.config.files import read_yaml
from videostore.config.settings import AccessFile, RetentionFile, SiteSettings, VideoKeepSettings
from videostore.domain.access import AccessPolicy
from videostore.domain.breach import WatchPolicy
from videostore.domain.camera import CameraId
from videostore.domain.errors import ConfigInvalid, SiteError, SiteExists, SiteMissing
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import Sha256Hex
from videostore.durable import disk_errors, locked, remove_file, write_file

MOST_KEEPS = 8
"""Each costs a key an hour, and lifecycle rules. S3 takes a thousand: with eight they last two months."""
SETTINGS = "videostore.yaml"
ENVIRONMENT = "VIDEOSTORE_SITE"


@dataclass(frozen=True, slots=True)
class Site:
    """A site's directory and settings; policies are read anew each time, for they may be tightened."""

    root: Path
    settings: SiteSettings

    @classmethod
    def load(cls, root: Path, *, whole: bool = True) -> Site:
        """Read and validate everything of the site that is configuration; without ``whole`` the settings
        alone, for retention goes on when another file is broken.

        Raises SiteMissing, SiteTooNew, ConfigInvalid, KeepTooLong, or SiteError to root in a site of another
        user.
        """
        if not (root / SETTINGS).is_file():
            raise SiteMissing(
                f"{root} is not a videostore site: it has no {SETTINGS}",
                hint=f"Make one with `videostore init DIR`, or name one with --site or {ENVIRONMENT}.",
            )
        _must_be_of_this_user(root)
        site = cls(root.absolute(), read_yaml(root / SETTINGS, SiteSettings))
        if whole:
            site.retention()
            site.access()
            site.cameras.all()
        return site

    def path(self, relative: str) -> Path:
        """Return a path that a setting names, relative to the site unless absolute."""
        return self.root / relative

    def retention(self) -> Mapping[Kind, RetentionPolicy]:
        """Read policies/retention.yaml."""
        content = read_yaml(self.root / "policies" / "retention.yaml", RetentionFile)
        video, entry_exit = content.video, content.entry_exit
        for keep in (*video.groups.values(), *video.cameras.values()):
            RetentionPolicy(Kind.VIDEO, keep, video.lead, video.key_period)  # refuses what is too long
        shorter = {camera_id: keep for camera_id, keep in self._keeps(video).items() if keep < video.keep}
        if (different := len(set(shorter.values()))) > MOST_KEEPS:
            raise ConfigInvalid(
                f"policies/retention.yaml: cameras are kept for {different} different times besides the "
                f"site's; at most {MOST_KEEPS}",
                hint="Each has keys of its own, made and destroyed every hour, and rules in the store. Give "
                "cameras of a kind the same keep.",
            )
        return {
            Kind.VIDEO: RetentionPolicy(Kind.VIDEO, video.keep, video.lead, video.key_period, shorter),
            Kind.ENTRY_EXIT: RetentionPolicy(
                Kind.ENTRY_EXIT, entry_exit.keep, entry_exit.lead, entry_exit.key_period
            ),
        }

    def _keeps(self, video: VideoKeepSettings) -> dict[CameraId, timedelta]:
        """Return the shortest keep that group or camera ask for, of every camera that one of them names."""
        keeps = dict(video.cameras)
        for camera in self.cameras.all():
            if camera.group in video.groups:
                keep = video.groups[camera.group]
                keeps[camera.id] = min(keep, keeps.get(camera.id, keep))
        return keeps

    def unknown_in_retention(self) -> list[str]:
        """Return what retention.yaml names and no camera has: its shorter keep would reach nobody."""
        video = read_yaml(self.root / "policies" / "retention.yaml", RetentionFile).video
        cameras = self.cameras.all()
        groups = video.groups.keys() - {camera.group for camera in cameras}
        ids = video.cameras.keys() - {camera.id for camera in cameras}
        return [*(f"group {name}" for name in sorted(groups)), *(f"camera {one}" for one in sorted(ids))]

    def access(self) -> AccessPolicy:
        """Read policies/access.yaml and the notice it names."""
        content = self._access_file()
        return AccessPolicy(
            notice_sha256=Sha256Hex(sha256(self._notice(content).encode()).hexdigest()),
            max_span=content.max_span,
            grant_lifetime=content.grant_lifetime,
            second_person=frozenset(content.second_person),
            break_glass=content.break_glass,
        )

    def watch(self) -> WatchPolicy:
        """Read from policies/access.yaml what counts as a suspected breach."""
        content = self._access_file().watch
        return WatchPolicy(
            window=content.window,
            refusals=content.refusals,
            out_of_purpose=content.out_of_purpose,
            footage=content.footage,
            failed_logins=content.failed_logins,
            hours=content.working_hours(),
        )

    def approvers(self) -> Mapping[str, str]:
        """Return the approvers' public keys by identifier."""
        return self._access_file().approvers

    def notice(self) -> str:
        """Return the text that staff acknowledge."""
        return self._notice(self._access_file())

    def _notice(self, content: AccessFile) -> str:
        path = self.root / "policies" / content.notice
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigInvalid(
                f"cannot read the notice {path}: {error}", hint="Restore the file."
            ) from error

    @property
    def cameras(self) -> CameraList:
        return CameraList(self.root / "cameras.yaml")

    def _access_file(self) -> AccessFile:
        return read_yaml(self.root / "policies" / "access.yaml", AccessFile)

    # --- what running roles say of themselves ---

    @contextmanager
    def duty(self, role: str) -> Iterator[None]:
        """Hold ``role`` for this process: a site has one of each. Raises SiteBusy."""
        with locked(self.root / "run" / f"{role}.lock", wait=False):
            try:
                yield
            finally:
                self.withdraw(role)

    def announce(self, role: str, facts: Mapping[str, Any]) -> None:
        """Note that ``role`` runs in this process, and where it listens."""
        write_file(
            self.root / "run" / f"{role}.json", json.dumps({"pid": os.getpid(), **facts}, indent=1).encode()
        )

    def withdraw(self, role: str) -> None:
        remove_file(self.root / "run" / f"{role}.json")

    def running(self) -> dict[str, dict[str, Any]]:
        """Return what each role announced whose process still lives."""
        roles: dict[str, dict[str, Any]] = {}
        for path in sorted((self.root / "run").glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                facts = json.loads(path.read_bytes())
                os.kill(facts["pid"], 0)
                roles[path.stem] = facts
        return roles


def _must_be_of_this_user(root: Path) -> None:
    """What root writes here belongs to root: the roles, which run as somebody else, could not read it."""
    owner = root.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        with suppress(KeyError):
            owner_name = pwd.getpwuid(owner).pw_name
            raise SiteError(
                f"{root} belongs to the user {owner_name}, and you are root",
                hint=f"Type it as that user: runuser -u {owner_name} -- … (docs/guide/install.md).",
            )


def create_site(root: Path, *, name: str, overrides: Mapping[str, str] | None = None) -> None:
    """Write the configuration of a new site into the directory ``root``, which must exist.

    ``overrides`` replaces whole files by text (the demonstration shortens the retention policy).
    """
    for source, text in {**_templates(name), **(overrides or {})}.items():
        write_file(root / source, text.encode())
    write_cameras(root / "cameras.yaml", [])
    (root / "secrets").mkdir(mode=0o700)


class NewDirectory:
    """Builds a directory beside its place and moves it there whole, so nothing half-made stays."""

    def __init__(self, target: Path) -> None:
        self._target = target.absolute()

    def __enter__(self) -> Path:
        with disk_errors(self._target):
            if self._target.exists() and (not self._target.is_dir() or any(self._target.iterdir())):
                raise SiteExists(
                    f"{self._target} exists and is not an empty directory",
                    hint="Name a new directory. An existing site is never overwritten.",
                )
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._building = Path(tempfile.mkdtemp(prefix=".videostore-", dir=self._target.parent))
        return self._building

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._building, ignore_errors=True)
            return
        with disk_errors(self._target):
            self._building.chmod(0o750)
            self._building.replace(self._target)


def find_root(option: Path | None) -> Path:
    """Return the site directory: the option, else VIDEOSTORE_SITE, else the current directory."""
    return option or Path(os.environ.get(ENVIRONMENT) or ".")


def _templates(name: str) -> dict[str, str]:
    settings = (files("videostore") / "config" / SETTINGS).read_text(encoding="utf-8")
    texts = {SETTINGS: settings.replace("site: example", f"site: {name}")}
    for path in ("retention.yaml", "access.yaml", "notice/notice.md"):
        texts[f"policies/{path}"] = _packaged(path)
    return texts


def _packaged(path: str) -> str:
    """Return a file of the top-level ``policies`` directory, which a wheel carries inside the package."""
    for base in (files("videostore") / "policies", files("videostore") / ".." / "policies"):
        with as_file(base) as directory:
            if (directory / path).is_file():
                return (directory / path).read_text(encoding="utf-8")
    raise ConfigInvalid(f"the installation lacks policies/{path}", hint="Install videostore again.")
