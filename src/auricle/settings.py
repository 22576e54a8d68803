"""Settings: read once, from flags, `AURICLE_*` variables and a TOML file, in this order of precedence.

The only module that reads the environment.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, FilePath, IPvAnyAddress, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

DEFAULT_MODEL = "moonshine/tiny-en"

OPENAI_MODEL_NAMES = (
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
    "whisper-1",
)


def _usable_cores() -> int:
    """The cores that this process may use; a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_state_dir() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "auricle"


class Settings(BaseSettings):
    """Everything that can be set about a server. Immutable."""

    model_config = SettingsConfigDict(env_prefix="AURICLE_", frozen=True, extra="forbid")

    config: Path | None = Field(None, description="A TOML file with any of these settings")

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    tls: Literal["self-signed"] | None = Field(
        None, description="`self-signed`: speak https and wss with a certificate of the server's own making"
    )
    tls_cert: FilePath | None = Field(
        None, description="Certificate chain, PEM; with `tls_key` the server speaks https and wss"
    )
    tls_key: FilePath | None = Field(None, description="Private key of the certificate, PEM")

    webrtc: bool = Field(True, description="Take calls over WebRTC")
    webrtc_host: Annotated[tuple[IPvAnyAddress, ...], NoDecode] = Field(
        (),
        description="Addresses at which WebRTC clients reach this server, if not at its own: behind NAT, in containers",
    )
    webrtc_ports: str = Field(
        "", pattern=r"^(\d{1,5}-\d{1,5})?$", description="UDP ports of calls, such as 50000-50100; else any free ones"
    )

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field((), description="Keys that clients may use")
    api_keys_file: Path | None = Field(
        None, description="File with one key a line; empty lines and `#` lines are skipped"
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of web pages that may use the server, besides its own; `*` allows all. "
        "Without any, all may where API keys are wanted, else none",
    )
    no_auth: bool = Field(False, description="Take any key also on an address that others can reach")
    signing_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="Secret that signs ephemeral keys; the same on all replicas. Else random per start",
    )

    model: str = Field(DEFAULT_MODEL, description="The model of sessions that name none")
    aliases: dict[str, str] = Field(
        dict.fromkeys(OPENAI_MODEL_NAMES, ""),
        description="Further names of models; an empty value means the default model",
    )
    models: dict[str, dict[str, Any]] = Field(
        {},
        repr=False,  # there are keys of other services in it
        exclude=True,
        description="Models to offer besides the embedded one, and what is set about each: see docs/engines.md",
    )
    model_wait_s: float = Field(
        8, ge=0, description="Longest time for which a session's change of its model waits for it to be loaded"
    )
    model_idle_s: float = Field(
        600, gt=0, description="After so long in which no session or request needed it, a model is unloaded; inf: never"
    )
    threads: int = Field(max(_usable_cores() - 1, 1), ge=1, description="Threads that a decoding step may use")
    decode_timeout_s: float = Field(60, gt=0, description="After this long in one batch the worker counts as hung")

    max_sessions: int = Field(1000, ge=1, description="Most sessions at a time")
    max_lag_s: float = Field(
        2, gt=0, description="Longest wait for decoding at which new sessions, and first words in a session, are taken"
    )
    max_session_s: float = Field(3600, gt=0, description="Longest time a session may take")
    max_item_s: float = Field(600, ge=1, description="Most audio in one item")
    max_backlog_s: float = Field(
        60, ge=1, description="Audio that may wait for its text before a session's socket is not read"
    )
    max_event_bytes: int = Field(21 * 1024 * 1024, ge=1024, description="Largest message that a client may send")
    max_outbox_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Events that may wait for a client that doesn't read; then it is closed"
    )
    file_processes: int = Field(
        min(_usable_cores(), 4),
        ge=1,
        description="Whole recordings transcribed at a time, each in a process of its own",
    )
    max_waiting_files: int = Field(100, ge=0, description="Recordings that may wait for one of these processes")
    max_file_bytes: int = Field(512 * 1024 * 1024, ge=1024, description="Largest recording in one request")
    max_file_s: float = Field(4 * 3600, gt=0, description="Longest recording in one request")
    kept_audio_s: float = Field(15, ge=0, description="Audio of finished items that stays retrievable in a session")

    state_dir: Path = Field(
        default_factory=_default_state_dir,
        description="Folder for what is kept between starts: the certificate of `tls = self-signed`",
    )

    log_json: bool = Field(False, description="Write the log as JSON, an object a line")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")

    @field_validator("api_keys", "allowed_origins", "webrtc_host", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            is_origin = parts.scheme and parts.netloc and not (parts.path.strip("/") or parts.query or parts.fragment)
            if not is_origin and origin not in ("*", "null"):
                raise ValueError(
                    f"'{origin}' is no origin, which looks like https://app.example.com or http://localhost:3000."
                )
        return origins

    @field_validator("webrtc_ports")
    @classmethod
    def _check_ports(cls, value: str) -> str:
        if value:
            first, last = map(int, value.split("-"))
            if not 1 <= first <= last <= 65535:
                raise ValueError("ports go from 1 to 65535, the lower one first.")
        return value

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: set both or none.")
        if self.tls and self.tls_cert:
            raise ValueError("tls and tls_cert exclude each other: a certificate of your own is not self-signed by us.")
        for address in self.webrtc_host:
            if address.version not in self._ip_versions:
                raise ValueError(
                    f"{address} in webrtc_host is IPv{address.version}, at which calls can't come "
                    f"where the server listens, {self.host}."
                )
        if not (self.all_api_keys or self.no_auth or self.is_loopback):
            raise ValueError(
                f"{self.host} can be reached by others and no API key is set. "
                "Set AURICLE_API_KEYS (`auricle key` makes one), or pass --no-auth if that is what you want."
            )
        return self

    @property
    def _ip_versions(self) -> tuple[int, ...]:
        """Of the addresses that calls can have: a name is one of IPv4, and `::` is all addresses, of both."""
        if ":" not in self.host:
            return (4,)
        return (4, 6) if ipaddress.ip_address(self.host).is_unspecified else (6,)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def all_api_keys(self) -> tuple[str, ...]:
        """The keys of both places. Raises ValueError: the file can't be read."""
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text().splitlines()
            except OSError as error:
                raise ValueError(f"The file of API keys can't be read: {error}") from None
            keys += [key for line in lines if (key := line.strip()) and not key.startswith("#")]
        return tuple(keys)

    @property
    def udp_ports(self) -> range:
        """What calls may bind; port 0 stands for any free one."""
        first, last = map(int, self.webrtc_ports.split("-")) if self.webrtc_ports else (0, 0)
        return range(first, last + 1)

    @property
    def base_url(self) -> str:
        """Where clients find the API."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls or self.tls_cert else 'http'}://{host}:{self.port}/v1"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = init_settings().get("config") or os.environ.get("AURICLE_CONFIG")
        if not file:
            return init_settings, env_settings
        if not Path(file).is_file():
            raise ValueError(f"There is no settings file {file}.")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(file))
