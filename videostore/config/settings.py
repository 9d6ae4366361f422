"""The shape of videostore.yaml and of the policy files. Strict: an unknown key is an error.

docs/reference/*.schema.json are made from these models, and a test compares them.
"""

from __future__ import annotations

from datetime import time, timedelta
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from videostore.config.durations import Address, Duration, EntryExitKeep, VideoKeep, split_address
from videostore.domain.access import Mode
from videostore.domain.breach import Hours
from videostore.domain.camera import Transport

VERSION = 1
"""Of the site directory. A newer one is refused (SiteTooNew) before anything else is read."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecorderSettings(_Strict):
    """How cameras are recorded."""

    segment: Duration = Field(
        timedelta(seconds=10), description="Target length of a segment, 2s to 120s; it is cut at a keyframe."
    )
    cameras_per_process: int = Field(
        64, description="A recorder of more cameras than this is that many more processes.", ge=1, le=64
    )
    spool: str = Field("spool", description="Directory of sealed segments that wait for upload.")
    spool_limit: ByteSize = Field(
        ByteSize(20_000_000_000),
        description="What the spool may hold, such as 20GB; beyond it the oldest footage is given up.",
        ge=1_000_000,
    )
    uploads: int = Field(4, description="How many segments are uploaded at the same time.", ge=1, le=64)
    upload_limit: ByteSize = Field(
        ByteSize(0), description="What uploads may take of the network in a second, such as 2MB; 0: no limit."
    )
    max_clock_offset: Duration = Field(
        timedelta(seconds=10),
        description="How far a camera's clock may lie behind the time of receipt and still be believed.",
    )
    stall: Duration = Field(
        timedelta(seconds=10), description="Silence after which a camera counts as unreachable."
    )
    look: Duration = Field(
        timedelta(minutes=1),
        description="How often a picture of each camera is checked: black, covered, frozen, blurred, moved.",
    )

    @model_validator(mode="after")
    def _bounds(self) -> RecorderSettings:
        if not timedelta(seconds=2) <= self.segment <= timedelta(seconds=120):
            raise ValueError("segment must be from 2s to 120s")
        return self


class FolderSettings(_Strict):
    """A folder in which an NVR leaves files; its cameras have the URL folder://NAME/CAMERA."""

    path: str = Field(description="The folder; relative to the site.")
    pattern: str = Field(
        "{camera}/%Y-%m-%d/%H-%M-%S",
        description="How files are named, without suffix: {camera}, strptime tokens, * for any text.",
    )
    timezone: str = Field("UTC", description="Zone of the times in the names, such as Europe/Zurich.")
    settle: Duration = Field(timedelta(seconds=10), description="A file unchanged for so long is complete.")
    look: Duration = Field(timedelta(minutes=1), description="How often the whole folder is looked at.")

    @model_validator(mode="after")
    def _known(self) -> FolderSettings:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"there is no time zone {self.timezone!r}") from error
        if self.pattern.count("{camera}") != 1:
            raise ValueError("a pattern names {camera} once")
        return self


class DirectoryStoreSettings(_Strict):
    """The embedded store: a directory on this machine."""

    kind: Literal["directory"] = "directory"
    path: str = Field("store", description="Where sealed segments are kept.")


StoreRole = Literal["recorder", "gate", "retention", "auditor"]
"""Who asks the store for something; each may have credentials of its own."""


class BucketSettings(_Strict):
    """A bucket of any S3 store."""

    endpoint: str = Field("", description="URL of the S3 API, such as https://s3.example.org; empty for AWS.")
    bucket: str = Field(description="Bucket of this site; `videostore store provision` makes it.")
    region: str = Field("us-east-1", description="Region that requests are signed for.")
    credentials: str = Field(
        "", description="env:NAME or file:PATH holding ACCESS_KEY:SECRET_KEY; empty for the AWS chain."
    )
    ca_file: str = Field("", description="PEM file of the certificate authority, if it is a private one.")
    addressing: Literal["path", "virtual"] = Field(
        "path", description="Whether the bucket stands in the path of a URL or in its host name."
    )
    proxy: str = Field("", description="URL of an HTTP proxy; empty for that of the environment.")


class S3StoreSettings(BucketSettings):
    """Any S3 store; `minio` puts and gets through the MinIO SDK, at less CPU."""

    kind: Literal["s3", "minio"]
    roles: dict[StoreRole, str] = Field(
        default_factory=dict,
        description="Credentials of recorder, gate, retention and auditor, where they differ from the above.",
    )
    read_back: Literal["never", "size", "content"] = Field(
        "never",
        description="What is asked again after a put. The store verifies a SHA-256 in any case; "
        "more than `never` needs a recorder that may read.",
    )


StoreSettings = Annotated[DirectoryStoreSettings | S3StoreSettings, Field(discriminator="kind")]


class CatalogueSettings(_Strict):
    """Where segment facts are kept."""

    url: str = Field(
        "sqlite:///catalogue.db",
        description="sqlite:///PATH (relative to the site) or postgresql://HOST/DATABASE without a password.",
    )
    credentials: str = Field("", description="env:NAME or file:PATH holding USER:PASSWORD, for PostgreSQL.")


class KeyringSettings(_Strict):
    """Where hour keys live."""

    path: str = Field("keyring", description="Directory of the hour keys.")
    master_key: str = Field(
        "keyring/master.key",
        description="What wraps them: a file of mode 0600, better on another device; or a PKCS #11 token, "
        "pkcs11:token=NAME;object=LABEL?module-path=/usr/lib/….so&pin-source=file:secrets/pin; or the "
        "transit engine of OpenBao or Vault, transit:https://HOST:8200/v1/transit/keys/NAME?token=file:secrets/transit",
    )
    ahead: Duration = Field(
        timedelta(hours=48), description="How far ahead keys are made, so that recorders can work alone."
    )


class DirectoryAnchorSettings(_Strict):
    """A directory that keeps checkpoints: best a file share that this host can only add to."""

    kind: Literal["directory"]
    path: str = Field(description="The directory; it must be there.")


class BucketAnchorSettings(BucketSettings):
    """A bucket with object lock that keeps checkpoints; best it is somebody else's."""

    kind: Literal["s3"]
    locked: Duration = Field(timedelta(days=400), description="For how long nobody can remove a checkpoint.")
    auditor: str = Field(
        "",
        description="Credentials of who may list and read all versions there, so that `videostore check` "
        "compares with what was kept; empty for those above.",
    )


class LedgerSettings(_Strict):
    """Where checkpoints of the ledger are taken, so that nobody here can change its past unseen."""

    checkpoint: Duration = Field(timedelta(hours=1), description="How often.")
    anchors: dict[
        str, Annotated[DirectoryAnchorSettings | BucketAnchorSettings, Field(discriminator="kind")]
    ] = Field(default_factory=dict, description="Places by name.")


class RetentionSettings(_Strict):
    """How often retention looks, and when it stops believing the clock."""

    sweep: Duration = Field(
        timedelta(seconds=60), description="Longest time between two sweeps; one also runs when a key is due."
    )
    deletes_per_second: int = Field(
        1000,
        ge=1,
        description="Objects that are deleted in a second at most, so that recording goes on beside.",
    )
    max_clock_jump: Duration = Field(
        timedelta(minutes=5), description="A jump of the running host's clock beyond this is not believed."
    )
    max_off: Duration = Field(
        timedelta(hours=24),
        description="A site that was off longer than this waits for `videostore retention confirm-clock`.",
    )


class OidcSettings(_Strict):
    """The provider of OpenID Connect by which staff log in."""

    issuer: str = Field(description="URL of the provider, as its ID tokens name it.")
    client_id: str = Field(description="What the gate is called at the provider.")
    client_secret: str = Field("", description="env:NAME or file:PATH; empty for a public client.")
    ca_file: str = Field("", description="PEM file of the certificate authority, if it is a private one.")
    scope: str = Field("openid", description="What the provider is asked for.")
    max_clock_skew: Duration = Field(
        timedelta(seconds=30), description="How far the provider's clock may be off, two minutes at most."
    )

    @model_validator(mode="after")
    def _bounds(self) -> OidcSettings:
        if not self.issuer.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
            raise ValueError("issuer must begin with https://")
        if self.max_clock_skew > timedelta(minutes=2):
            raise ValueError("max_clock_skew must be two minutes at most")
        if "openid" not in self.scope.split():
            raise ValueError("scope must hold openid")
        return self


class GateSettings(_Strict):
    """The door to footage."""

    listen: Address = Field("127.0.0.1:8470", description="HOST:PORT; port 0 takes a free one.")
    tls_certificate: str = Field(
        "", description="PEM file; empty: the gate makes its own, which clients trust by tls/ca.pem."
    )
    tls_key: str = Field("", description="PEM file of its private key, mode 0600.")
    plain_http: bool = Field(False, description="No TLS, behind a proxy on this machine that speaks it.")
    idle: Duration = Field(timedelta(minutes=15), description="A login ends after this long without use.")
    session: Duration = Field(timedelta(hours=4), description="A login ends after this long in any case.")
    url: str = Field("", description="Where people reach the gate, if not where it listens: https://…")
    oidc: OidcSettings | None = Field(None, description="Empty: staff log in with password and code.")

    @model_validator(mode="after")
    def _bounds(self) -> GateSettings:
        host, _ = split_address(self.listen)
        if self.oidc is not None and not self.url:
            raise ValueError("oidc needs url: the provider sends browsers back to it")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.plain_http and host not in {"localhost", "::1"} and not host.startswith("127."):
            raise ValueError("plain_http is for this machine only")
        return self


class MetricsSettings(_Strict):
    """Prometheus endpoints, one for each role; port 0 takes a free one."""

    recorder: Address = "127.0.0.1:9470"
    retention: Address = "127.0.0.1:9471"
    gate: Address = "127.0.0.1:9472"


class BackupSettings(_Strict):
    """When somebody is told that a site is not backed up."""

    max_age: Duration | None = Field(
        None, description="How old the newest backup may be; empty: 36h, from the first that is made."
    )


class LoggingSettings(_Strict):
    """Logs go to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    form: Literal["text", "json"] = "text"


class SiteSettings(_Strict):
    """videostore.yaml"""

    version: Literal[1] = Field(description="Version of the site directory.")
    site: str = Field(
        description="Name of the premises; written into certificates.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$",
    )
    recorder: RecorderSettings = RecorderSettings()
    folders: dict[str, FolderSettings] = Field(
        default_factory=dict, description="Drop folders by name: a-z, 0-9 and -."
    )
    store: StoreSettings = DirectoryStoreSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    keyring: KeyringSettings = KeyringSettings()
    retention: RetentionSettings = RetentionSettings()
    ledger: LedgerSettings = LedgerSettings()
    gate: GateSettings = GateSettings()
    metrics: MetricsSettings = MetricsSettings()
    logging: LoggingSettings = LoggingSettings()
    backup: BackupSettings = BackupSettings()


class VideoKeepSettings(_Strict):
    """How long footage is kept. The shortest that applies to a camera counts."""

    keep: VideoKeep = Field(description="Age at which nothing may be readable any more; 30d at most.")
    lead: Duration = Field(timedelta(minutes=15), description="How long before the deadline deletion begins.")
    key_period: Duration = Field(timedelta(hours=1), description="Span that one hour key covers.")
    groups: dict[str, VideoKeep] = Field(
        default_factory=dict, description="A shorter keep for the cameras of a group."
    )
    cameras: dict[UUID, VideoKeep] = Field(
        default_factory=dict, description="A shorter keep for one camera, by its UUID: a name may change."
    )


class EntryExitKeepSettings(_Strict):
    """How long entry/exit records are kept."""

    keep: EntryExitKeep = Field(description="Age at which nothing may be readable any more; 24h at most.")
    lead: Duration = Field(timedelta(minutes=15), description="How long before the deadline deletion begins.")
    key_period: Duration = Field(timedelta(hours=1), description="Span that one hour key covers.")


class RetentionFile(_Strict):
    """policies/retention.yaml"""

    version: Literal[1]
    video: VideoKeepSettings
    entry_exit: EntryExitKeepSettings


class WatchSettings(_Strict):
    """What counts as a suspected breach. Each number is of one person, within the window."""

    window: Duration = Field(timedelta(hours=1), description="How long things are counted together.")
    refusals: int = Field(10, ge=1, description="Refusals.")
    out_of_purpose: int = Field(3, ge=1, description="Refusals of what no incident or grant is for.")
    footage: Duration = Field(timedelta(hours=24), description="Camera time that was served.")
    failed_logins: int = Field(10, ge=1, description="Logins that failed.")
    hours: str = Field(
        "",
        description="When people work, such as 07:00-19:00 Europe/Zurich; empty: at any time.",
    )

    @model_validator(mode="after")
    def _known(self) -> WatchSettings:
        self.working_hours()
        return self

    def working_hours(self) -> Hours | None:
        """Return ``hours`` as the rules take them. Raises ValueError."""
        if not self.hours:
            return None
        span, _, zone = self.hours.partition(" ")
        try:
            start, end = (time.fromisoformat(part) for part in span.split("-"))
            return Hours(start, end, ZoneInfo(zone or "UTC"))
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{self.hours!r} is not like 07:00-19:00 Europe/Zurich") from error


class AccessFile(_Strict):
    """policies/access.yaml"""

    version: Literal[1]
    notice: str = Field("notice/notice.md", description="The text that staff acknowledge, beside this file.")
    approvers: dict[str, str] = Field(
        default_factory=dict,
        description="Delegates of the Under-Secretary-General: identifier -> public key (ed25519:…).",
    )
    max_span: Duration = Field(timedelta(hours=24), description="Longest span that one request may ask for.")
    grant_lifetime: Duration = Field(timedelta(hours=4), description="How long a grant may be used.")
    second_person: list[Mode] = Field([Mode.EXPORT], description="Modes that a second person must approve.")
    break_glass: bool = Field(
        False,
        description="Whether an approved person may go on without the second one, alarmed and reviewed.",
    )
    watch: WatchSettings = WatchSettings()


State = Literal["enabled", "disabled", "removed"]


class CameraEntry(_Strict):
    """One entry of cameras.yaml."""

    id: str
    name: str
    url: str
    credentials: str = ""
    transport: Transport = Transport.TCP
    ca_file: str = ""
    fingerprint: str = ""
    group: str = ""
    place: str = ""
    sound: bool = False
    state: State = "enabled"


class CamerasFile(_Strict):
    """cameras.yaml, written by `videostore camera …`"""

    version: Literal[1]
    cameras: list[CameraEntry] = []
