"""Settings: read once, checked whole, frozen. Each is an environment variable named `WXAUTH_` and its name."""

import base64
import binascii
import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from wxauth.errors import UnknownApp
from wxauth.guard.jwks import is_loopback
from wxauth.sealing import SECRET_KEY_BYTES

PREFIX: Final = "WXAUTH_"
ENV_FILE: Final = ".env"
SECRETS_DIR: Final = "/run/secrets"
WECHAT_URL: Final = "https://api.weixin.qq.com"
WECHAT_FALLBACK_URL: Final = "https://api2.weixin.qq.com"

# A Kubernetes Service named "wxauth" gives every pod beside it these, WXAUTH_PORT among them.
_SERVICE_LINK_NAME = re.compile(r"WXAUTH_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp)://")


class InvalidSettings(Exception):
    """Settings are wrong or missing; `problems` names each variable and what it wants, never its value."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def _split_at_commas(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _check_secret_key(value: SecretStr) -> SecretStr:
    secret_key_bytes(value)
    return value


def _check_database_url(value: SecretStr) -> SecretStr:
    url = re.sub(r"^postgres(ql)?(\+asyncpg)?://", "postgresql://", value.get_secret_value())
    if not url.startswith("postgresql://"):
        raise ValueError("wants a URL like postgresql://user:password@host:5432/database")
    return SecretStr(url)


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("wants a URL like https://host or https://host/path, without user, query or fragment")
    if value.endswith("/"):
        raise ValueError("wants a URL without a trailing slash")
    return value


def _check_secure_url(value: str) -> str:
    _check_url(value)
    parts = urlsplit(value)
    if parts.scheme != "https" and not is_loopback(parts.hostname):
        raise ValueError("wants https, unless the host is this machine's own loopback")
    return value


def _check_network(value: str) -> str:
    if value != "*":
        try:
            ip_network(value, strict=False)
        except ValueError:
            raise ValueError("wants addresses or networks like 10.0.0.0/8, with commas between, or *") from None
    return value


def _check_origin(value: str) -> str:
    if value != "*" and (urlsplit(_check_url(value)).path):
        raise ValueError("wants origins like https://admin.example.com, with commas between")
    return value


def _drop_service_link(value: object) -> object:
    return 8000 if isinstance(value, str) and _SERVICE_LINK_VALUE.match(value) else value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


AnySettings = TypeVar("AnySettings", bound="DatabaseSettings")
SecretKey = Annotated[SecretStr, AfterValidator(_check_secret_key)]
Url = Annotated[str, AfterValidator(_check_secure_url)]
CommaList = BeforeValidator(_split_at_commas)


class AppSettings(BaseModel):
    """A mini-program."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    app_secret: Annotated[SecretStr, Field(min_length=1)]
    push_token: SecretStr | None = None
    push_aes_key: SecretStr | None = None


class DatabaseSettings(BaseSettings):
    """What `wxauth migrate` needs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    database_url: Annotated[SecretStr, AfterValidator(_check_database_url)]
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = Field(default_factory=lambda: "console" if sys.stdout.isatty() else "json")


class Settings(DatabaseSettings):
    """All that the service is told from outside. The README has the table."""

    app_id: Annotated[str | None, BeforeValidator(_empty_is_none)] = None
    app_secret: Annotated[SecretStr | None, BeforeValidator(_empty_is_none)] = None
    apps: tuple[AppSettings, ...] = ()

    secret_key: SecretKey
    secret_key_previous: Annotated[tuple[SecretKey, ...], NoDecode, CommaList] = ()

    issuer: Url = "http://127.0.0.1:8000"
    audience: Annotated[str, Field(min_length=1)] = "wxauth"
    access_token_ttl: Annotated[int, Field(ge=1, le=86400)] = 900
    refresh_token_ttl: Annotated[int, Field(ge=1)] = 2592000
    session_max_age: Annotated[int, Field(ge=1)] = 31536000
    refresh_reuse_grace: Annotated[int, Field(ge=0)] = 10
    signing_key_max_age: Annotated[int, Field(ge=3600)] = 7776000

    wechat_base_url: Url = WECHAT_URL
    wechat_fallback_url: Annotated[Url | None, BeforeValidator(_empty_is_none)] = None
    wechat_timeout: Annotated[float, Field(gt=0, le=60)] = 5.0

    redis_url: Annotated[SecretStr | None, BeforeValidator(_empty_is_none)] = None
    login_rate_limit: Annotated[str, StringConstraints(pattern=r"^(\d+/(second|minute|hour|day))?$")] = "600/minute"
    trusted_proxies: Annotated[tuple[Annotated[str, AfterValidator(_check_network)], ...], NoDecode, CommaList] = (
        "127.0.0.1",
    )
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode, CommaList] = ()

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535), BeforeValidator(_drop_service_link)] = 8000
    workers: Annotated[int, Field(ge=1, le=256)] = 1

    @model_validator(mode="after")
    def _one_way_to_name_apps(self) -> Self:
        pair = (self.app_id, self.app_secret)
        if self.apps and any(pair):
            raise ValueError("WXAUTH_APPS: wants WXAUTH_APP_ID and WXAUTH_APP_SECRET unset beside it")
        if not self.apps and not all(pair):
            raise ValueError("WXAUTH_APP_ID and WXAUTH_APP_SECRET: both are required, or WXAUTH_APPS")
        ids = [app.app_id for app in self.apps]
        if len(set(ids)) != len(ids):
            raise ValueError("WXAUTH_APPS: wants each app_id once")
        return self

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        if self.app_id and self.app_secret and not self.apps:
            app = AppSettings(app_id=self.app_id, app_secret=self.app_secret)
            object.__setattr__(self, "apps", (app,))
        if self.wechat_fallback_url is None and self.wechat_base_url == WECHAT_URL:
            object.__setattr__(self, "wechat_fallback_url", WECHAT_FALLBACK_URL)
        return self

    @property
    def secret_keys(self) -> list[bytes]:
        """The current secret key, then the previous ones."""
        return [secret_key_bytes(key) for key in (self.secret_key, *self.secret_key_previous)]

    def app(self, app_id: str | None) -> AppSettings:
        """The app of that id; the first configured one for None. Raises: UnknownApp."""
        if app_id is None:
            return self.apps[0]
        for app in self.apps:
            if app.app_id == app_id:
                return app
        raise UnknownApp("app_id is not one of the configured apps")


def secret_key_bytes(value: SecretStr) -> bytes:
    """The bytes of a secret key. Raises: ValueError, unless they are 32."""
    try:
        key = base64.b64decode(value.get_secret_value().translate({ord("-"): "+", ord("_"): "/"}), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != SECRET_KEY_BYTES:
        raise ValueError("wants 32 bytes in base64; 'wxauth secret new' makes one")
    return key


def load_settings(kind: type[AnySettings]) -> AnySettings:
    """Read from the environment, `.env` and `/run/secrets`. Raises: InvalidSettings."""
    secrets_dir = SECRETS_DIR if Path(SECRETS_DIR).is_dir() else None
    return settings_from(kind, _env_file=ENV_FILE, _secrets_dir=secrets_dir)


def settings_from(kind: type[AnySettings], **values: Any) -> AnySettings:
    """Read from the environment alone; what is given here comes first. Raises: InvalidSettings."""
    try:
        return kind(**values)
    except ValidationError as exc:
        raise InvalidSettings(_problem(error) for error in exc.errors(include_input=False)) from None
    except SettingsError as exc:
        name = re.search(r'field "(\w+)"', str(exc))
        raise InvalidSettings([f"{PREFIX}{(name[1] if name else 'APPS').upper()}: wants valid JSON"]) from None


def unknown_names(environ: Mapping[str, str] | None = None) -> list[str]:
    """What is set under our prefix and is no setting, each as a line for the operator."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    given = {*(os.environ if environ is None else environ), *dotenv_values(ENV_FILE)}
    lines = []
    for name in sorted(given):
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _SERVICE_LINK_NAME.fullmatch(name):
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f", did you mean {close[0]}?" if close else ""
            lines.append(f"{name}: no such setting{hint}")
    return lines


def _problem(error: Mapping[str, Any]) -> str:
    location: tuple[str | int, ...] = error["loc"]
    message = str(error["msg"]).removeprefix("Value error, ")
    if not location:
        return message
    name = PREFIX + str(location[0]).upper()
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location[1:])
    if error["type"] == "missing" and not inside:
        message = "is required"
    return f"{name}{inside}: {message}"
