"""Settings of the process: where it listens, what it reads, how much it accepts. Decisions are the policy file's."""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.places import DEFAULT_MODELS, DEFAULT_POLICY, DEFAULT_STATE

NEEDS_KEY = (
    "can be reached from other machines: set HYBRID_ROUTER_API_KEY (at least 16 characters) to listen there, "
    "or listen on 127.0.0.1"
)


class Settings(BaseSettings):
    """Read from the environment, prefix `HYBRID_ROUTER_`, and from the command line, which wins."""

    model_config = SettingsConfigDict(env_prefix="HYBRID_ROUTER_", extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    grpc_port: int | None = Field(8081, ge=0, le=65535, description="Port of the gRPC front; the word off: none.")
    fd: int | None = Field(None, ge=3, description="Descriptor of a listening socket to take over instead.")
    policy: Path = Field(DEFAULT_POLICY, description="The policy file.")
    models_dir: Path = Field(DEFAULT_MODELS, description="Where the policy file's model files are.")
    state_dir: Path = Field(DEFAULT_STATE, description="Where what was spent of budgets is kept.")
    device_root: Path = Field(
        Path("/"), description="Where the device's sensors are looked up, as /sys, /proc and /usr/bin/vcgencmd."
    )
    api_key: SecretStr | None = Field(None, min_length=16, description="Bearer token that clients must send.")
    max_body_bytes: int = Field(4 << 20, ge=1024, description="Larger request bodies are refused.")
    body_timeout_s: float = Field(10.0, gt=0, description="Longest that a body may take to arrive.")
    drain_notice_s: float = Field(
        0.5, ge=0, description="How long readiness says no before SIGTERM closes the door, so that balancers see it."
    )
    drain_timeout_s: float = Field(10.0, gt=0, description="Longest that requests may take to end on shutdown.")

    @field_validator("grpc_port", mode="before")
    @classmethod
    def _off_is_none(cls, value: object) -> object:
        return None if value == "off" else value

    @model_validator(mode="after")
    def _locked_when_exposed(self) -> Settings:
        if self.api_key is None and not is_loopback(self.host):
            raise ValueError(f"{self.host} {NEEDS_KEY}")
        return self


def last_good_policy(settings: Settings) -> Path:
    """Where a copy of what was in force last is kept, of this policy file and no other."""
    path = settings.policy.absolute()
    return settings.state_dir / f"{path.stem}-{hashlib.sha256(bytes(path)).hexdigest()[:8]}.last-good.yaml"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
