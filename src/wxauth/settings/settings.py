"""The settings, which are read and validated once, and then frozen.

Each setting is an environment variable with the prefix `WXAUTH_`.
"""

import difflib
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings import addresses, secrets, types, urls
from wxauth.settings.apps import App, AppId, AppList, SignUp, SignUpRoles
from wxauth.settings.claims import Claims, JsonClaims
from wxauth.settings.env_file import EnvLine, read_env_file
from wxauth.settings.http_urls import is_below
from wxauth.settings.resources import Resource, Resources, check_distinct
from wxauth.terminal import TextError, WrongValue, os_reason, rule_of

PREFIX: Final = "WXAUTH_"
ENV_FILE: Final = Path(".env")
WECHAT_URL: Final = "https://api.weixin.qq.com"
WECHAT_OPEN_URL: Final = "https://open.weixin.qq.com"
WECHAT_FALLBACK_URL: Final = "https://api2.weixin.qq.com"

_DEFAULT_ISSUER: Final = "http://127.0.0.1:8000"
_DEFAULT_AUDIENCE: Final = "wxauth"

# Kubernetes sets these variables for a Service named "wxauth" or "wxauth-…". WXAUTH_PORT is one of them.
_SERVICE_LINK_NAME = re.compile(r"WXAUTH_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")


class InvalidSettings(TextError):
    """Settings are wrong or missing. `problems` names each variable and what it must be, never its value."""

    def __init__(self, problems: Iterable[Text]) -> None:
        self.problems = list(problems)
        super().__init__(Text("\n").join(self.problems))


AnySettings = TypeVar("AnySettings", bound="DatabaseSettings")


class DatabaseSettings(BaseSettings):
    """The settings of `wxauth migrate`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
        enable_decoding=False,
    )

    database_url: urls.DatabaseUrl
    log_level: Annotated[Literal["debug", "info", "warning", "error"], types.Lower] = "info"
    log_format: Annotated[Literal["json", "console"], types.Lower] = Field(
        default_factory=lambda: "console" if sys.stdout.isatty() else "json"
    )
    log_addresses: bool = False
    secrets_dir: types.SecretsFolder = types.SECRETS_DIR


class PhoneSettings(DatabaseSettings):
    """The settings of `wxauth users list`."""

    phone_region: types.Region = "CN"


class ConsoleSettings(DatabaseSettings):
    """The settings of `wxauth admin link`."""

    issuer: urls.Issuer = _DEFAULT_ISSUER
    admin_page: bool = False


class ClientCommandSettings(DatabaseSettings):
    """The settings of `wxauth clients add` and `set`."""

    audience: types.Audience = _DEFAULT_AUDIENCE
    apps: AppList = ()
    resources: Resources = ()


class Settings(DatabaseSettings):
    """All settings of the service, in the order of `docs/reference/settings.md`, which describes them."""

    app_id: types.OrNone[AppId] = None
    app_secret: types.OrNone[secrets.AppSecret] = None
    apps: AppList = Field((), validate_default=True)

    secret_key: secrets.SecretKey
    secret_key_previous: Annotated[tuple[secrets.SecretKey, ...], types.CommaList] = ()

    issuer: urls.Issuer = _DEFAULT_ISSUER
    audience: types.Audience = _DEFAULT_AUDIENCE
    access_token_ttl: Annotated[types.Seconds, Field(le=86400)] = 900
    refresh_token_ttl: types.Seconds = 2592000
    session_max_age: types.Seconds = 31536000
    refresh_reuse_grace: types.AnySeconds = 60
    signing_key_max_age: Annotated[types.Seconds, Field(ge=3600)] = 7776000

    wechat_base_url: urls.SecureUrl = WECHAT_URL
    wechat_fallback_url: types.OrNone[urls.SecureUrl] = Field(None, validate_default=True)
    wechat_open_url: urls.SecureUrl = WECHAT_OPEN_URL
    wechat_timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    wechat_proxy: types.OrNone[urls.ProxyUrl] = None

    phone_policy: types.PhonePolicy = "move"
    link_phone_days: Annotated[types.Days, Field(ge=1)] = 60
    phone_check_openid: bool = True
    phone_region: types.Region = "CN"
    sign_up: SignUp = "open"
    sign_up_roles: Annotated[SignUpRoles, types.CommaList] = ()
    sign_up_hook_url: types.OrNone[urls.HookUrl] = None
    sign_up_hook_secret: Annotated[types.OrNone[secrets.WebhookSecret], Field(validate_default=True)] = None
    sign_up_hook_timeout: Annotated[float, Field(gt=0, le=10)] = 2.0
    sign_up_hook_failure: Annotated[Literal["refuse", "allow"], types.Lower] = "refuse"
    claims: Annotated[Claims, JsonClaims] = {}
    consents: Annotated[dict[str, str], types.Documents] = {}

    events_kept_days: types.TrailDays = 0
    addresses_kept_days: types.Days = 0
    erasure_grace_days: Annotated[types.Days, Field(le=15)] = 0
    ended_sessions_kept_days: Annotated[types.Days, Field(ge=1)] = 30

    scan_page: urls.PagePath = "pages/scan/scan"
    site_page: urls.PagePath = "pages/authorize/authorize"
    scan_env: Annotated[Literal["release", "trial", "develop"], types.Lower] = "release"
    scan_code: Annotated[Literal["wxacode", "link"], types.Lower] = "wxacode"
    scan_entry: Annotated[Literal["camera", "any"], types.Lower] = "camera"
    scan_link: Annotated[Literal["off", "scheme", "url"], types.Lower] = "off"
    scan_rate_limit: types.RateText = "60/minute"
    scan_client_limit: types.RateText = "600/minute"
    scan_picture_limit: types.RateText = "3000/minute"
    scan_admin_anywhere: bool = False
    web_session_ttl: types.Seconds = 43200
    web_session_max_age: types.Seconds = 2592000
    sso_ttl: types.AnySeconds = 28800
    resources: Resources = ()
    client_documents: Annotated[tuple[urls.HostName, ...], types.CommaList] = ()
    link_check_file: types.OrNone[urls.DomainFile] = None
    check_files: urls.RootFiles = ()

    redis_url: types.OrNone[urls.RedisUrl] = None
    login_rate_limit: types.RateText = "600/minute"
    rate_limit_exempt: addresses.ExemptNetworks = ()

    trusted_proxies: addresses.Networks = ("127.0.0.1",)
    cors_origins: Annotated[tuple[urls.WebOrigin, ...], types.CommaList] = ()
    otlp_url: types.OrNone[urls.Url] = None

    admin_page: bool = False
    staff_reads: bool = True
    admin_fresh_login: types.AnySeconds = 3600

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: types.Port = 8000
    workers: Annotated[int, Field(ge=1, le=256)] = 1

    @field_validator("apps")
    @classmethod
    def _one_way_to_name_apps(cls, apps: tuple[App, ...], info: ValidationInfo) -> tuple[App, ...]:
        # One of them is invalid, which has been reported already.
        if not {"app_id", "app_secret"} <= info.data.keys():
            return apps
        app_id, app_secret = info.data["app_id"], info.data["app_secret"]
        if apps and (app_id or app_secret):
            raise WrongValue(_("must not be set together with WXAUTH_APP_ID and WXAUTH_APP_SECRET"))
        if bool(app_id) != bool(app_secret):
            raise WrongValue(_("WXAUTH_APP_ID and WXAUTH_APP_SECRET: set both, or use WXAUTH_APPS"))
        if len({app.app_id for app in apps}) != len(apps):
            raise WrongValue(_("must contain each app_id only once"))
        return apps or ((App(app_id=app_id, app_secret=app_secret),) if app_id else ())

    @field_validator("issuer")
    @classmethod
    def _no_forward_to_ourselves(cls, issuer: str, info: ValidationInfo) -> str:
        for app in info.data.get("apps", ()):
            if app.push_forward is not None and is_below(app.push_forward, issuer):
                text = _(
                    "push_forward of {app_id} in WXAUTH_APPS must not be a URL of wxauth itself", app_id=app.app_id
                )
                raise WrongValue(text)
        return issuer

    @field_validator("sign_up_hook_secret")
    @classmethod
    def _no_hook_without_secret(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None and info.data.get("sign_up_hook_url") is not None:
            raise WrongValue(_("must be set together with {name}", name="WXAUTH_SIGN_UP_HOOK_URL"))
        return secret

    @field_validator("resources")
    @classmethod
    def _none_is_the_audience(cls, resources: tuple[Resource, ...], info: ValidationInfo) -> tuple[Resource, ...]:
        return check_distinct(resources, [info.data.get("audience", "")])

    @field_validator("client_documents")
    @classmethod
    def _no_documents_without_resources(cls, hosts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if hosts and info.data.get("resources") == ():
            raise WrongValue(_("must be set together with {name}", name="WXAUTH_RESOURCES"))
        return hosts

    @field_validator("wechat_fallback_url", mode="before")
    @classmethod
    def _fall_back_from_the_default(cls, value: object, info: ValidationInfo) -> object:
        return WECHAT_FALLBACK_URL if value is None and info.data.get("wechat_base_url") == WECHAT_URL else value

    @property
    def secret_keys(self) -> list[bytes]:
        """The current secret key, then the previous ones."""
        return [secrets.secret_key_bytes(key) for key in (self.secret_key, *self.secret_key_previous)]

    def added_in_log(self, ip: str | None) -> dict[str, Any]:
        """Return more fields for the log line of a login or refresh: the address, with `LOG_ADDRESSES`."""
        return {"ip": ip} if self.log_addresses else {}

    def may_sign_up(self, app: App) -> bool:
        """Return whether new users may sign up with this app."""
        return (app.sign_up or self.sign_up) == "open"

    def roles_at_sign_up(self, app: App) -> tuple[str, ...]:
        """Return the roles of a user who signs up with this app."""
        return self.sign_up_roles if app.sign_up_roles is None else app.sign_up_roles


_NAMES: Final = [name.upper() for name in Settings.model_fields]
_OF_APPS: Final = [name for name in map(str.upper, App.model_fields) if name not in _NAMES]
_SIGN: Final = "[:：＝﹦⁼]"
_SETTING: Final = re.compile(
    rf"(?:export\s)?\s*(?P<before>.*?)\b{PREFIX}(?P<setting>{'|'.join(sorted(_NAMES, key=len, reverse=True))}"
    rf"|(?:{'|'.join(_OF_APPS)})(?=\s*{_SIGN}))(?P<rest>\s*(?P<sign>{_SIGN}?).*)",
    re.IGNORECASE | re.DOTALL,
)
"""A text that contains the name of a setting, if possible a long one, or an app's field before a wrong sign."""
_WORD: Final = re.compile(r"\w+", re.ASCII)
_OTHER_QUOTES: Final = tuple("“”‘’„«＂＇「『`")


def load_settings(
    kind: type[AnySettings], *, env_file: Path = ENV_FILE, secrets_dir: Path = types.SECRETS_DIR
) -> AnySettings:
    """Read settings from the environment, a `.env` file, and files named after them. The first that sets a value wins.

    The files named after settings are in the folder WXAUTH_SECRETS_DIR, by default in `secrets_dir`.

    Raises: InvalidSettings.
    """
    try:
        unknown = unknown_names(env_file=env_file)
        given = {name.upper(): value for name, value in {**read_env_file(env_file)[0], **os.environ}.items()}
        secrets_dir = Path(given.get(f"{PREFIX}SECRETS_DIR") or secrets_dir)
        names = {f"{PREFIX}{field.upper()}": field for field in kind.model_fields}
        given = {**(_read_files(secrets_dir, names.keys() - given) if secrets_dir.is_dir() else {}), **given}
        values = {field: given[name] for name, field in names.items() if given.get(name) is not None}
        return settings_from(kind, **values)
    except InvalidSettings as exc:
        raise InvalidSettings([*exc.problems, *unknown]) from None
    except OSError as exc:
        problem = _("cannot read {file}: {reason}", file=env_file, reason=os_reason(exc))
        raise InvalidSettings([problem]) from None
    except UnicodeDecodeError:
        raise InvalidSettings([_("{name}: must be UTF-8 text", name=env_file)]) from None


def settings_from(kind: type[AnySettings], **values: Any) -> AnySettings:
    """Construct settings. `values` take precedence over the environment. Raises: InvalidSettings."""
    try:
        return kind(**values)
    except ValidationError as exc:
        raise InvalidSettings(_problem(error) for error in exc.errors(include_input=False)) from None


def unknown_names(environ: Mapping[str, str] = os.environ, *, env_file: Path | None = ENV_FILE) -> list[Text]:
    """Return a text about each variable with our prefix that isn't a setting, and each line that sets nothing.

    The texts repeat only names of settings, because a secret may be where a name should be.
    """
    lines = [EnvLine(0, name, name, value) for name, value in sorted(environ.items())]
    lines += read_env_file(env_file)[1] if env_file else []
    return [fault for line in lines if (fault := _fault_of(line))]


def _fault_of(line: EnvLine) -> Text | None:
    name, value = (line.name or "").upper(), line.value or ""
    place = _(".env, line {n}", n=line.number) if line.number else _("the environment")
    is_setting = name.startswith(PREFIX) and name.removeprefix(PREFIX) in _NAMES
    if is_setting and line.value is not None:
        text = _("{name}: must use straight quotes or none ({place})", name=name, place=place)
        return text if value.startswith(_OTHER_QUOTES) else None
    if _SERVICE_LINK_NAME.fullmatch(name) or (name.endswith("_PORT") and types.SERVICE_LINK.match(value)):
        return None
    typed = _WORD.match(name.removeprefix(PREFIX))
    word = typed[0] if typed else ""
    close = ["APPS"] if word in _OF_APPS else difflib.get_close_matches(word, _NAMES, n=1)
    found = _SETTING.match(line.text if line.name is None or is_setting else line.name)
    return (found and _fault_of_setting(found, close, place)) or _fault_of_name(line, close, place)


def _fault_of_name(line: EnvLine, close: list[str], place: Text) -> Text | None:
    """Return what is wrong with a name that isn't a setting; None if it isn't ours.

    `close` contains similar settings.
    """
    if line.name is None:
        return _("{name}: {rule}", name=place, rule=_("must be NAME=value"))
    if not line.name.upper().startswith(PREFIX):
        return None
    is_word = line.number == 0 and re.fullmatch("[A-Z_]+", line.text)
    text = _("{name}: no such setting. Did you mean {meant}?") if close else _("{name}: no such setting")
    return Text(text, name=line.text if is_word else place, meant=f"{PREFIX}{close[0]}" if close else "")


def _fault_of_setting(found: re.Match[str], close: list[str], place: Text) -> Text | None:
    """Return what is wrong around the name of a setting.

    The result is None if the name is only the beginning of another one, or if the user meant `close`, a similar
    setting.
    """
    setting, rest, sign = found["setting"].upper(), found["rest"], found["sign"]
    # A single additional letter makes a misspelt name, such as a plural. Several letters may be a value without its
    # `=`.
    if re.fullmatch("[A-Za-z]", rest) or (_WORD.match(rest) and close not in ([], [setting])):
        return None
    if found["before"]:
        text = _("{name}: must be at the beginning of its line ({place})")
    elif rest.startswith("="):
        text = _("{name}: must have closed quotes, and nothing after them ({place})")
    elif sign:
        text = _("{name}: must be followed by '=', not by '{sign}' ({place})")
    else:
        text = _("{name}: must be followed by '=' ({place})")
    return Text(text, name=f"{PREFIX}{setting}", sign=sign, place=place)


def _read_files(folder: Path, names: Collection[str]) -> dict[str, str | None]:
    """Return the texts of the files with these names. Raises: InvalidSettings, OSError."""
    texts: dict[str, str | None] = {}
    for path in folder.iterdir():
        name = path.name.upper()
        if name not in names:
            continue
        # Docker creates a folder if the file to mount does not exist.
        if path.is_dir():
            raise InvalidSettings([_("{name}: must be a file, but is a folder", name=name)])
        try:
            texts[name] = path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError):
            raise InvalidSettings([_("{name}: must be a readable file of UTF-8 text", name=name)]) from None
    return texts


def _problem(error: Mapping[str, Any]) -> Text:
    location: tuple[str | int, ...] = error["loc"]
    rule = rule_of(error)
    if rule.startswith(PREFIX):
        return rule
    if error["type"] == "extra_forbidden":
        kind = Resource if location[0] == "resources" else App
        location, rule = location[:-1], _("must contain only {names}", names=", ".join(kind.model_fields))
    elif error["type"] == "missing":
        rule = _("is required")
    elif error["type"] == "string_pattern_mismatch" and location[-1] == "app_id":
        rule = _("must be an AppID, such as wx0123456789abcdef")
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location[1:])
    return _("{name}: {rule}", name=f"{PREFIX}{str(location[0]).upper()}{inside}", rule=rule)
