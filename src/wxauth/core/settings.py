"""Settings: read once, checked whole, frozen. Each is an environment variable named `WXAUTH_` and its name."""

import base64
import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

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
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import from_json
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from wxauth.core.sealing import SECRET_KEY_BYTES
from wxauth.guard.urls import is_secure

PREFIX: Final = "WXAUTH_"
ENV_FILE: Final = Path(".env")
SECRETS_DIR: Final = Path("/run/secrets")
WECHAT_URL: Final = "https://api.weixin.qq.com"
WECHAT_FALLBACK_URL: Final = "https://api2.weixin.qq.com"

_CENTURY: Final = 100 * 366 * 86400
_DEFAULT_ISSUER: Final = "http://127.0.0.1:8000"
_SHORTEST_TRAIL: Final = 180
_EXAMPLE_OF_APPS: Final = '[{"app_id": "wx…", "app_secret": "…"}]'

_DOCUMENT: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Kubernetes sets these in each pod beside a Service named "wxauth" or "wxauth-…"; WXAUTH_PORT is one of them.
_SERVICE_LINK_NAME = re.compile(r"WXAUTH_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


class InvalidSettings(Exception):
    """Settings are wrong or missing; `problems` names each variable and what it wants, never its value."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def _split_at_commas(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _read_documents(value: object) -> object:
    if not isinstance(value, str):
        return value
    documents = [item.strip().partition(":") for item in value.split(",") if item.strip()]
    are_good = all(_DOCUMENT.fullmatch(name) and _VERSION.fullmatch(version) for name, _, version in documents)
    if not are_good or len({name for name, *_ in documents}) != len(documents):
        raise ValueError("wants documents and versions like privacy:2026-05,terms:3, each document once")
    return {name: version for name, _, version in documents}


def _read_json_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        apps = from_json(value) if value else []
    except ValueError:
        apps = None
    if not isinstance(apps, list):
        raise ValueError(f"wants JSON like {_EXAMPLE_OF_APPS}")
    return apps


def _check_secret_key(value: SecretStr) -> SecretStr:
    secret_key_bytes(value)
    return value


def _check_database_url(value: SecretStr) -> SecretStr:
    url = re.sub(r"^postgres(ql)?(\+asyncpg)?://", "postgresql://", value.get_secret_value())
    authority = re.match(r"postgresql://([^/?#]*)", url)
    if authority is None:
        raise ValueError("wants a URL like postgresql://user:password@host:5432/database")
    hosts = authority[1].rpartition("@")[2].split(",")
    query = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
    ports = [host.rpartition(":")[2] for host in hosts if re.search(r":\d+$", host)]
    listed = query.get("port", "").split(",") if query.get("port") else []
    if not all(port.isdigit() and 0 < int(port) < 65536 for port in [*ports, *listed]):
        raise ValueError("wants ports from 1 to 65535")
    if len(listed) not in (0, 1, len(query.get("host", "").split(","))):
        raise ValueError("wants one port, or as many as hosts")
    if "#" in url or not all(re.fullmatch(r"(\[[\da-fA-F:.]+\]|[^:\[\]]*)(:\d{1,5})?", host) for host in hosts):
        raise ValueError("wants hosts like host:5432, and / : # ? @ [ ] in user or password percent-encoded")
    return SecretStr(url)


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or re.search(r"[\s?#@\\]", value):
        raise ValueError("wants a URL like https://host or https://host/path, without user, query or fragment")
    if value.endswith("/"):
        raise ValueError("wants a URL without a trailing slash")
    return value


def _check_secure_url(value: str) -> str:
    if not is_secure(_check_url(value)):
        raise ValueError("wants https, unless the host is this machine's own loopback")
    return value


def _check_issuer(value: str) -> str:
    path = urlsplit(_check_secure_url(value)).path
    if "%" in path or path.split("/")[1:2] in (["v1"], ["docs"], [".well-known"]):
        raise ValueError("wants a path without percent-encoding, and none of the service's own (/v1, /docs)")
    return value


def _check_app_secret(value: SecretStr) -> SecretStr:
    if not value:
        raise ValueError("must not be empty")
    if re.search(r"\s", value.get_secret_value()):
        raise ValueError("wants no white space")
    return value


def _check_push_token(value: SecretStr) -> SecretStr:
    # WeChat's page takes letters and digits. Other printable characters pass too, should WeChat ever take them.
    if not re.fullmatch(r"[!-~]{3,32}", value.get_secret_value()):
        raise ValueError("wants the Token of WeChat's message push settings: 3 to 32 letters and digits")
    return value


def _check_push_aes_key(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[A-Za-z0-9+/]{43}", value.get_secret_value()):
        raise ValueError("wants the EncodingAESKey of WeChat's message push settings: 43 letters and digits")
    return value


def _check_proxy_url(value: SecretStr) -> SecretStr:
    user = r"([^:/?#@\s]+(:[^:/?#@\s]*)?@)?"
    host = r"(\[[\da-fA-F:.]+\]|[^:/?#@\[\]\s]+)"
    url = re.fullmatch(rf"http://{user}{host}:(?P<port>\d{{1,5}})/?", value.get_secret_value())
    if url is None or not 0 < int(url["port"]) < 65536:
        raise ValueError(
            "wants a URL like http://user:password@host:3128, and : / ? # @ in the first two percent-encoded"
        )
    return value


def _check_redis_url(value: SecretStr) -> SecretStr:
    user = r"([^/?#]*@)?"
    host = r"(\[[\da-fA-F:.]+\]|[^:/?#@\[\],\s]+)(:\d{1,5})?"
    hosts = rf"{host}(,{host})*"
    forms = (
        rf"rediss?://{user}{host}(/\d*)?",
        rf"rediss?\+sentinel://{user}{hosts}/[^/?#]+(/\d*)?",
        rf"rediss?\+cluster://{user}{hosts}/?",
        r"unix://[^/?#]*/[^?]+",
    )
    if not re.fullmatch(rf"({'|'.join(forms)})(\?.*)?", value.get_secret_value()):
        raise ValueError(
            "wants a URL like redis://host:6379/0, redis+sentinel://host:26379,host:26379/name "
            "or redis+cluster://host:6379,host:6379"
        )
    return value


def _check_events_kept(value: int) -> int:
    if 0 < value < _SHORTEST_TRAIL:
        raise ValueError(f"wants 0, for good, or {_SHORTEST_TRAIL} days or more")
    return value


def _check_rate(value: str) -> str:
    if not re.fullmatch(r"([1-9]\d{0,8}/(second|minute|hour|day))?", value):
        raise ValueError("wants a rate like 600/minute (or second, hour, day), or nothing for no limit")
    return value


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("*",):
        return value
    try:
        items = tuple(str(ip_network(item, strict=False)) if "/" in item else str(ip_address(item)) for item in value)
    except ValueError:
        raise ValueError("wants addresses or networks like 10.0.0.0/8, with commas between, or * alone") from None
    if any(item.endswith("/0") for item in items):  # the first entry would count, which the client itself may write
        raise ValueError("wants the networks of the proxies, not all addresses; for the last entry of anybody, * alone")
    return items


def _check_origin(value: str) -> str:
    if value != "*" and urlsplit(_check_url(value)).path:
        raise ValueError("wants origins like https://admin.example.com, with commas between")
    return value


def _check_folder(value: Path) -> Path:
    if value != SECRETS_DIR and not os.access(value, os.R_OK | os.X_OK):  # the default folder may be missing
        raise ValueError("wants a folder that can be read")
    return value


def _check_page(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", value):
        raise ValueError("wants a page like pages/scan/scan, without a slash before it and without a query")
    return value


def _check_link_file(value: str) -> str:
    # The name that WeChat's console gives the file, and what is in it.
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}:[!-~]{1,1024}", value):
        raise ValueError("wants name:content of the file that WeChat's console gave, like a1B2c3.txt:0f1e2d3c")
    return value


def _drop_service_link(value: object) -> object:
    return 8000 if isinstance(value, str) and _SERVICE_LINK_VALUE.match(value) else value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


AnySettings = TypeVar("AnySettings", bound="DatabaseSettings")
AppId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
CommaList = BeforeValidator(_split_at_commas)
Lower = BeforeValidator(_lower)
OrNone = BeforeValidator(_empty_is_none)
SignUp = Annotated[Literal["open", "closed"], Lower]
Policy = Literal["off", "flag", "block"]
Days = Annotated[int, Field(ge=0, le=36600)]
Seconds = Annotated[int, Field(ge=1, le=_CENTURY)]
SecretKey = Annotated[SecretStr, AfterValidator(_check_secret_key)]
AppSecret = Annotated[SecretStr, AfterValidator(_check_app_secret), Field(json_schema_extra={"minLength": 1})]
PushToken = Annotated[SecretStr, AfterValidator(_check_push_token)]
PushAesKey = Annotated[SecretStr, AfterValidator(_check_push_aes_key)]
Issuer = Annotated[str, AfterValidator(_check_issuer)]
Url = Annotated[str, AfterValidator(_check_secure_url)]


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

    database_url: Annotated[SecretStr, AfterValidator(_check_database_url)]
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = "info"
    log_format: Annotated[Literal["json", "console"], Lower] = Field(
        default_factory=lambda: "console" if sys.stdout.isatty() else "json"
    )
    secrets_dir: Annotated[Path, AfterValidator(_check_folder)] = SECRETS_DIR


class ConsoleSettings(DatabaseSettings):
    """What `wxauth admin link` needs."""

    issuer: Issuer = _DEFAULT_ISSUER
    admin_page: bool = False


class Settings(DatabaseSettings):
    """All that the service is told from outside. `docs/settings.md` has the table."""

    app_id: Annotated[AppId | None, OrNone] = None
    app_secret: Annotated[AppSecret | None, OrNone] = None
    apps: Annotated[tuple[App, ...], NoDecode, BeforeValidator(_read_json_list)] = Field((), validate_default=True)

    secret_key: SecretKey
    secret_key_previous: Annotated[tuple[SecretKey, ...], NoDecode, CommaList] = ()

    issuer: Issuer = _DEFAULT_ISSUER
    audience: Annotated[str, Field(min_length=1)] = "wxauth"
    access_token_ttl: Annotated[int, Field(ge=1, le=86400)] = 900
    refresh_token_ttl: Seconds = 2592000
    session_max_age: Seconds = 31536000
    refresh_reuse_grace: Annotated[int, Field(ge=0, le=_CENTURY)] = 60
    signing_key_max_age: Annotated[int, Field(ge=3600, le=_CENTURY)] = 7776000

    wechat_base_url: Url = WECHAT_URL
    wechat_fallback_url: Annotated[Url | None, OrNone] = Field(None, validate_default=True)
    wechat_timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    wechat_proxy: Annotated[Annotated[SecretStr, AfterValidator(_check_proxy_url)] | None, OrNone] = None
    phone_policy: Annotated[Literal["refuse", "share", "link"], Lower] = "refuse"
    link_phone_days: Annotated[int, Field(ge=1, le=36600)] = 90
    phone_check_openid: bool = True
    risk_policy: Annotated[Policy, Lower] = "off"
    nickname_check: Annotated[Policy, Lower] = "off"
    sign_up: SignUp = "open"
    consents: Annotated[dict[str, str], NoDecode, BeforeValidator(_read_documents)] = {}
    events_kept_days: Annotated[Days, AfterValidator(_check_events_kept)] = 0
    addresses_kept_days: Days = 0

    scan_page: Annotated[str, AfterValidator(_check_page)] = "pages/scan/scan"
    scan_env: Annotated[Literal["release", "trial", "develop"], Lower] = "release"
    scan_code: Annotated[Literal["wxacode", "link"], Lower] = "wxacode"
    scan_entry: Annotated[Literal["camera", "any"], Lower] = "camera"
    scan_rate_limit: Annotated[str, AfterValidator(_check_rate)] = "60/minute"
    scan_client_limit: Annotated[str, AfterValidator(_check_rate)] = "600/minute"
    scan_picture_limit: Annotated[str, AfterValidator(_check_rate)] = "3000/minute"
    scan_admin_anywhere: bool = False
    web_session_ttl: Seconds = 43200
    web_session_max_age: Seconds = 2592000
    link_check_file: Annotated[Annotated[str, AfterValidator(_check_link_file)] | None, OrNone] = None

    redis_url: Annotated[Annotated[SecretStr, AfterValidator(_check_redis_url)] | None, OrNone] = None
    login_rate_limit: Annotated[str, AfterValidator(_check_rate)] = "600/minute"
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, CommaList, AfterValidator(_check_networks)] = ("127.0.0.1",)
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode, CommaList] = ()
    otlp_url: Annotated[Annotated[str, AfterValidator(_check_url)] | None, OrNone] = None

    admin_page: bool = False
    admin_fresh_login: Annotated[int, Field(ge=0, le=_CENTURY)] = 3600

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


def secret_key_bytes(value: SecretStr) -> bytes:
    """The bytes of a secret key. Raises: ValueError, unless they are 32."""
    try:
        key = base64.b64decode(value.get_secret_value().translate({ord("-"): "+", ord("_"): "/"}), validate=True)
    except ValueError:
        key = b""
    if len(key) != SECRET_KEY_BYTES:
        raise ValueError("wants 32 bytes in base64; 'wxauth secret new' makes one")
    return key


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
