"""Settings: read once, checked whole, frozen. Each is an environment variable named `WXAUTH_` and its name."""

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from wxauth.server.core.setting_types import (
    AnySeconds,
    AppId,
    AppList,
    AppSecret,
    Audience,
    CommaList,
    DatabaseUrl,
    Days,
    Documents,
    ExemptNetworks,
    Issuer,
    LinkFile,
    Lower,
    Networks,
    Origin,
    OrNone,
    Page,
    Policy,
    ProxyUrl,
    PushAesKey,
    PushToken,
    Rate,
    RedisUrl,
    Seconds,
    SecretKey,
    SecureUrl,
    SignUp,
    TrailDays,
    Url,
    secret_key_bytes,
)

PREFIX: Final = "WXAUTH_"
ENV_FILE: Final = Path(".env")
SECRETS_DIR: Final = Path("/run/secrets")
WECHAT_URL: Final = "https://api.weixin.qq.com"
WECHAT_FALLBACK_URL: Final = "https://api2.weixin.qq.com"

_DEFAULT_ISSUER: Final = "http://127.0.0.1:8000"
_DEFAULT_AUDIENCE: Final = "wxauth"

# Kubernetes sets these in each pod beside a Service named "wxauth" or "wxauth-…"; WXAUTH_PORT is one of them.
_SERVICE_LINK_NAME = re.compile(r"WXAUTH_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


class InvalidSettings(Exception):
    """Settings are wrong or missing; `problems` names each variable and what it wants, never its value."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def _check_folder(value: Path) -> Path:
    if value != SECRETS_DIR and not os.access(value, os.R_OK | os.X_OK):  # the default folder may be missing
        raise ValueError("wants a folder that can be read")
    return value


def _drop_service_link(value: object) -> object:
    return 8000 if isinstance(value, str) and _SERVICE_LINK_VALUE.match(value) else value


AnySettings = TypeVar("AnySettings", bound="DatabaseSettings")


class App(BaseModel):
    """A mini-program."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_id: AppId
    app_secret: AppSecret
    push_token: Annotated[PushToken | None, OrNone] = None
    """WeChat signs its messages to us with it. Without it, we take no messages."""
    push_aes_key: Annotated[PushAesKey | None, OrNone] = None
    """WeChat encrypts the messages with it; in WeChat's own form. With it, we take only encrypted messages."""
    sign_up: Annotated[SignUp | None, OrNone] = None
    """Whether unknown people may sign up by this app. It goes before SIGN_UP."""

    @model_validator(mode="after")
    def _no_key_without_token(self) -> Self:
        if self.push_aes_key is not None and self.push_token is None:
            raise ValueError("wants push_token beside push_aes_key")
        return self


class DatabaseSettings(BaseSettings):
    """What `wxauth migrate` needs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    database_url: DatabaseUrl
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = "info"
    log_format: Annotated[Literal["json", "console"], Lower] = Field(
        default_factory=lambda: "console" if sys.stdout.isatty() else "json"
    )
    secrets_dir: Annotated[Path, AfterValidator(_check_folder)] = SECRETS_DIR


class ConsoleSettings(DatabaseSettings):
    """What `wxauth admin link` needs."""

    issuer: Issuer = _DEFAULT_ISSUER
    admin_page: bool = False


class AudienceSettings(DatabaseSettings):
    """What `wxauth clients add` and `set` need."""

    audience: Audience = _DEFAULT_AUDIENCE


class Settings(DatabaseSettings):
    """All that the service is told from outside. `docs/settings.md` has the table."""

    app_id: Annotated[AppId | None, OrNone] = None
    app_secret: Annotated[AppSecret | None, OrNone] = None
    apps: Annotated[tuple[App, ...], NoDecode, AppList] = Field((), validate_default=True)

    secret_key: SecretKey
    secret_key_previous: Annotated[tuple[SecretKey, ...], NoDecode, CommaList] = ()

    issuer: Issuer = _DEFAULT_ISSUER
    audience: Audience = _DEFAULT_AUDIENCE
    access_token_ttl: Annotated[int, Field(ge=1, le=86400)] = 900
    refresh_token_ttl: Seconds = 2592000
    session_max_age: Seconds = 31536000
    refresh_reuse_grace: AnySeconds = 60
    signing_key_max_age: Annotated[Seconds, Field(ge=3600)] = 7776000

    wechat_base_url: SecureUrl = WECHAT_URL
    wechat_fallback_url: Annotated[SecureUrl | None, OrNone] = Field(None, validate_default=True)
    wechat_timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    wechat_proxy: Annotated[ProxyUrl | None, OrNone] = None
    phone_policy: Annotated[Literal["refuse", "share", "link"], Lower] = "refuse"
    link_phone_days: Annotated[int, Field(ge=1, le=36600)] = 60
    phone_check_openid: bool = True
    risk_policy: Policy = "off"
    nickname_check: Policy = "off"
    sign_up: SignUp = "open"
    consents: Annotated[dict[str, str], NoDecode, Documents] = {}
    events_kept_days: TrailDays = 0
    addresses_kept_days: Days = 0

    scan_page: Page = "pages/scan/scan"
    scan_env: Annotated[Literal["release", "trial", "develop"], Lower] = "release"
    scan_code: Annotated[Literal["wxacode", "link"], Lower] = "wxacode"
    scan_entry: Annotated[Literal["camera", "any"], Lower] = "camera"
    scan_rate_limit: Rate = "60/minute"
    scan_client_limit: Rate = "600/minute"
    scan_picture_limit: Rate = "3000/minute"
    scan_admin_anywhere: bool = False
    web_session_ttl: Seconds = 43200
    web_session_max_age: Seconds = 2592000
    link_check_file: Annotated[LinkFile | None, OrNone] = None

    redis_url: Annotated[RedisUrl | None, OrNone] = None
    login_rate_limit: Rate = "600/minute"
    rate_limit_exempt: Annotated[ExemptNetworks, NoDecode, CommaList] = ()
    trusted_proxies: Annotated[Networks, NoDecode, CommaList] = ("127.0.0.1",)
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, CommaList] = ()
    otlp_url: Annotated[Url | None, OrNone] = None

    admin_page: bool = False
    admin_fresh_login: AnySeconds = 3600

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535), BeforeValidator(_drop_service_link)] = 8000
    workers: Annotated[int, Field(ge=1, le=256)] = 1

    @field_validator("apps")
    @classmethod
    def _one_way_to_name_apps(cls, apps: tuple[App, ...], info: ValidationInfo) -> tuple[App, ...]:
        if "app_id" not in info.data:  # it is invalid, and has been reported
            return apps
        app_id, app_secret = info.data["app_id"], info.data["app_secret"]
        if apps and (app_id or app_secret):
            raise ValueError("wants WXAUTH_APP_ID and WXAUTH_APP_SECRET unset beside it")
        if bool(app_id) != bool(app_secret):
            raise ValueError("WXAUTH_APP_ID and WXAUTH_APP_SECRET: both are required, or WXAUTH_APPS")
        if len({app.app_id for app in apps}) != len(apps):
            raise ValueError("wants each app_id once")
        return apps or ((App(app_id=app_id, app_secret=app_secret),) if app_id else ())

    @field_validator("wechat_fallback_url", mode="before")
    @classmethod
    def _fall_back_from_the_default(cls, value: object, info: ValidationInfo) -> object:
        return WECHAT_FALLBACK_URL if value is None and info.data.get("wechat_base_url") == WECHAT_URL else value

    @property
    def secret_keys(self) -> list[bytes]:
        """The current secret key, then the previous ones."""
        return [secret_key_bytes(key) for key in (self.secret_key, *self.secret_key_previous)]

    def access_token_lasts(self, *, session_lasts: int) -> int:
        """Seconds for an access token: no token outlives its session; one without any time would be of no use."""
        return max(1, min(self.access_token_ttl, session_lasts))

    def may_sign_up(self, app: App) -> bool:
        """Whether unknown people may sign up by this app."""
        return (app.sign_up or self.sign_up) == "open"


def load_settings(
    kind: type[AnySettings], *, env_file: Path = ENV_FILE, secrets_dir: Path = SECRETS_DIR
) -> AnySettings:
    """Read each setting from the environment; else from a `.env` file; else from a file with the setting's name.

    Those files are in the folder that WXAUTH_SECRETS_DIR names; without that variable, in `secrets_dir`.

    Raises: InvalidSettings.
    """
    try:
        unknown = unknown_names(env_file=env_file)
        given = {name.upper(): value for name, value in _given(os.environ, env_file).items()}
        secrets_dir = Path(given.get(f"{PREFIX}SECRETS_DIR") or secrets_dir)
        names = [f"{PREFIX}{field.upper()}" for field in kind.model_fields]
        # Docker makes a folder where the file to be mounted is missing.
        if folders := [name for name in names if name not in given and (secrets_dir / name.lower()).is_dir()]:
            raise InvalidSettings(f"{name}: wants a file, and finds a folder of that name" for name in folders)
        return settings_from(kind, _env_file=env_file, _secrets_dir=secrets_dir if secrets_dir.is_dir() else None)
    except InvalidSettings as exc:
        raise InvalidSettings([*exc.problems, *unknown]) from None
    except OSError as exc:
        raise InvalidSettings([f"{env_file}: cannot be read: {exc.strerror}"]) from None
    except UnicodeDecodeError:
        raise InvalidSettings([f"{env_file}: wants UTF-8 text"]) from None


def settings_from(kind: type[AnySettings], **values: Any) -> AnySettings:
    """Read from the environment alone; `values` go before it. Raises: InvalidSettings."""
    try:
        return kind(**values)
    except ValidationError as exc:
        raise InvalidSettings(_problem(error) for error in exc.errors(include_input=False)) from None
    except SettingsError as exc:
        field = re.search(r'field "(\w+)"', str(exc))
        name = PREFIX + field[1].upper() if field else "a setting"
        raise InvalidSettings([f"{name}: its file cannot be read, or is no UTF-8 text"]) from None


def unknown_names(environ: Mapping[str, str] = os.environ, *, env_file: Path | None = ENV_FILE) -> list[str]:
    """A line for the operator about each variable that has our prefix and is no setting."""
    known = [name.upper() for name in Settings.model_fields]
    lines = []
    for name, value in sorted(_given(environ, env_file).items()):
        if not name.upper().startswith(PREFIX) or _is_service_link(name, value or ""):
            continue
        setting = name.upper().removeprefix(PREFIX)
        if setting not in known:
            close = difflib.get_close_matches(setting, known, n=1)
            hint = f", did you mean {PREFIX}{close[0]}?" if close else ""
            lines.append(f"{name}: no such setting{hint}")
    return lines


def _given(environ: Mapping[str, str], env_file: Path | None) -> dict[str, str | None]:
    return {**(dotenv_values(env_file) if env_file else {}), **environ}


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK_NAME.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_LINK_VALUE.match(value)))


def _problem(error: Mapping[str, Any]) -> str:
    location: tuple[str | int, ...] = error["loc"]
    message = str(error["msg"]).removeprefix("Value error, ")
    if message.startswith(PREFIX):
        return message
    if error["type"] == "extra_forbidden":
        location, message = location[:-1], f"wants only {', '.join(App.model_fields)}"
    elif error["type"] == "missing":
        message = "is required"
    elif error["type"] == "string_pattern_mismatch" and location[-1] == "app_id":
        message = "wants an AppID, such as wx0123456789abcdef"
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location[1:])
    return f"{PREFIX}{str(location[0]).upper()}{inside}: {message}"
