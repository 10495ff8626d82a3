"""The settings of the service and of its commands. They are validated once, and never change afterwards.

In the environment, the name of a setting is the field's name in upper case, after the prefix `WXAUTH_`. `loading` lists
the other sources of settings.
"""

import sys
from collections.abc import Iterable
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wxauth.i18n import Text, TextError, WrongValue, lazy_gettext as _
from wxauth.settings import addresses, secrets, types, urls
from wxauth.settings.apps import App, AppId, AppList, SignUp, SignUpRoles
from wxauth.settings.claims import Claims, JsonClaims
from wxauth.settings.resources import Resources
from wxauth.settings.urls import is_below

PREFIX: Final = "WXAUTH_"
WECHAT_URL: Final = "https://api.weixin.qq.com"
WECHAT_OPEN_URL: Final = "https://open.weixin.qq.com"
WECHAT_FALLBACK_URL: Final = "https://api2.weixin.qq.com"  # if wxauth cannot connect to WECHAT_URL

_HOUR: Final = 3600  # seconds
_DAY: Final = 24 * _HOUR

SHORTEST_KEY_LEAD: Final = 360  # seconds (`_UNTIL_ALL_KNOW` in `keys/models.py`)
LONGEST_KEY_LEAD: Final = 7 * _DAY

_DEFAULT_ISSUER: Final = "http://127.0.0.1:8000"
_DEFAULT_AUDIENCE: Final = "wxauth"
_DEFAULT_REGION: Final = "CN"
_DEFAULT_WEB_SESSION_MAX_AGE: Final = 30 * _DAY


class InvalidSettings(TextError):
    """`problems` names each wrong variable and the rule that it breaks, but contains no value that may be a secret."""

    def __init__(self, problems: Iterable[Text]) -> None:
        self.problems = list(problems)
        super().__init__(Text("\n").join(self.problems))


AnySettings = TypeVar("AnySettings", bound="DatabaseSettings")


class DatabaseSettings(BaseSettings):
    """The settings of commands that need only the database, such as `wxauth migrate`. The classes below extend them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
        enable_decoding=False,  # the types of the fields parse JSON and lists
    )

    database_url: urls.DatabaseUrl
    log_level: Annotated[Literal["debug", "info", "warning", "error"], types.Lower] = "info"
    log_format: Annotated[Literal["json", "console"], types.Lower] = Field(
        default_factory=lambda: "console" if sys.stdout.isatty() else "json"
    )
    log_addresses: bool = False
    secrets_dir: types.SecretsFolder = types.DEFAULT_SECRETS_DIR


class PhoneSettings(DatabaseSettings):
    """The settings of `wxauth users list`."""

    phone_region: types.Region = _DEFAULT_REGION


class ConsoleSettings(DatabaseSettings):
    """The settings of `wxauth admin link`."""

    issuer: urls.IssuerUrl = _DEFAULT_ISSUER
    admin_page: bool = False


class ClientCommandSettings(DatabaseSettings):
    """The settings of `wxauth clients add` and `set`."""

    audience: types.Audience = _DEFAULT_AUDIENCE
    apps: AppList = ()
    receivers_proxy: types.OrNone[urls.ReceiversProxyUrl] = None
    web_session_max_age: types.Seconds = _DEFAULT_WEB_SESSION_MAX_AGE
    resources: Resources = ()


class Settings(DatabaseSettings):
    """All settings of the service, in the order of `docs/reference/settings.md`, which describes them.

    A validator can read only settings that are declared before its own setting. With `validate_default`, the validator
    also runs if its own setting is not set.
    """

    app_id: types.OrNone[AppId] = None
    app_secret: types.OrNone[secrets.AppSecret] = None
    apps: AppList = Field((), validate_default=True)

    secret_key: secrets.SecretKey
    secret_key_previous: Annotated[tuple[secrets.SecretKey, ...], types.CommaList] = ()

    issuer: urls.IssuerUrl = _DEFAULT_ISSUER
    audience: types.Audience = _DEFAULT_AUDIENCE
    access_token_ttl: Annotated[types.Seconds, Field(le=_DAY)] = 900
    refresh_token_ttl: types.Seconds = 30 * _DAY
    session_max_age: types.Seconds = 365 * _DAY
    refresh_reuse_grace: types.AnySeconds = 60
    signing_key_max_age: Annotated[types.Seconds, Field(ge=_HOUR)] = 90 * _DAY
    # By default a day, in which most caches fetch the key, but less than the age.
    signing_key_lead: Annotated[types.Seconds, Field(ge=SHORTEST_KEY_LEAD, le=LONGEST_KEY_LEAD)] = Field(
        None, validate_default=True
    )

    wechat_base_url: urls.SecureUrl = WECHAT_URL
    wechat_fallback_url: types.OrNone[urls.SecureUrl] = Field(None, validate_default=True)
    wechat_open_url: urls.SecureUrl = WECHAT_OPEN_URL
    wechat_timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    wechat_proxy: types.OrNone[urls.ProxyUrl] = None

    receivers_proxy: types.OrNone[urls.ReceiversProxyUrl] = None
    receivers_proxy_documents: bool = False

    phone_policy: types.PhonePolicy = "move"
    link_phone_days: Annotated[types.Days, Field(ge=1)] = 60
    phone_check_openid: bool = True
    phone_region: types.Region = _DEFAULT_REGION
    sign_up: SignUp = "open"
    sign_up_roles: Annotated[SignUpRoles, types.CommaList] = ()
    sign_up_hook_url: types.OrNone[urls.HookUrl] = None
    sign_up_hook_secret: Annotated[types.OrNone[secrets.WebhookSecret], Field(validate_default=True)] = None
    sign_up_hook_timeout: Annotated[float, Field(gt=0, le=10)] = 2.0
    sign_up_hook_failure: Annotated[Literal["refuse", "allow"], types.Lower] = "refuse"
    claims: Annotated[Claims, JsonClaims] = {}
    consents: Annotated[dict[str, str], types.Documents] = {}

    events_kept_days: types.EventsKeptDays = 0
    addresses_kept_days: types.Days = 0
    # China's rules on account cancellation require an account to be closed within 15 days.
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
    web_session_ttl: types.Seconds = 12 * _HOUR
    web_session_max_age: types.Seconds = _DEFAULT_WEB_SESSION_MAX_AGE
    sso_ttl: types.AnySeconds = 8 * _HOUR
    resources: Resources = ()
    client_documents: Annotated[tuple[urls.HostName, ...], types.CommaList] = ()
    link_check_file: types.OrNone[urls.DomainFile] = None
    check_files: urls.RootFiles = ()

    redis_url: types.OrNone[urls.RedisUrl] = None
    login_rate_limit: types.RateText = "600/minute"
    rate_limit_exempt: addresses.ExemptNetworks = ()

    trusted_proxies: addresses.ProxyNetworks = ("127.0.0.1",)
    cors_origins: Annotated[tuple[urls.WebOrigin, ...], types.CommaList] = ()
    otlp_url: types.OrNone[urls.Url] = None

    admin_page: bool = False
    staff_reads: bool = True
    admin_fresh_login: types.AnySeconds = _HOUR

    # `wxauth alive` repeats the defaults of the host and the port, because it does not load the settings.
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: types.Port = 8000
    workers: Annotated[int, Field(ge=1, le=256)] = 1

    @field_validator("apps")
    @classmethod
    def _apps_or_single_app(cls, apps: tuple[App, ...], info: ValidationInfo) -> tuple[App, ...]:
        # A field that is missing in `info.data` is invalid, and has already been reported.
        if not {"app_id", "app_secret"} <= info.data.keys():
            return apps
        app_id, app_secret = info.data["app_id"], info.data["app_secret"]
        if apps and (app_id or app_secret):
            raise WrongValue(_("must not be set together with WXAUTH_APP_ID and WXAUTH_APP_SECRET"))
        if bool(app_id) != bool(app_secret):
            raise WrongValue(_("WXAUTH_APP_ID and WXAUTH_APP_SECRET: must both be set, unless you use WXAUTH_APPS"))
        if len({app.app_id for app in apps}) != len(apps):
            raise WrongValue(_("must contain each app_id only once"))
        return (App(app_id=app_id, app_secret=app_secret),) if app_id else apps

    # The default issuer needs no check, because WeChat cannot push messages to that address.
    @field_validator("issuer")
    @classmethod
    def _no_forward_to_wxauth(cls, issuer: str, info: ValidationInfo) -> str:
        for app in info.data.get("apps", ()):
            if app.push_forward is not None and is_below(app.push_forward, issuer):
                text = _("push_forward for {app_id} in WXAUTH_APPS must not point to wxauth itself", app_id=app.app_id)
                raise WrongValue(text)
        return issuer

    @field_validator("signing_key_lead", mode="before")
    @classmethod
    def _default_lead(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            max_age = info.data.get("signing_key_max_age", LONGEST_KEY_LEAD)
            return _DAY if max_age > _DAY else max(SHORTEST_KEY_LEAD, max_age // 2)
        return value

    @field_validator("signing_key_lead")
    @classmethod
    def _lead_below_age(cls, lead: int, info: ValidationInfo) -> int:
        if lead >= info.data.get("signing_key_max_age", lead + 1):
            raise WrongValue(_("must be less than {name}", name="WXAUTH_SIGNING_KEY_MAX_AGE"))
        return lead

    @field_validator("sign_up_hook_secret")
    @classmethod
    def _no_hook_without_secret(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None and info.data.get("sign_up_hook_url") is not None:
            raise WrongValue(_("must be set together with {name}", name="WXAUTH_SIGN_UP_HOOK_URL"))
        return secret

    @field_validator("client_documents")
    @classmethod
    def _no_documents_without_resources(cls, hosts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        # If the resources are invalid, `info.data` does not contain them, and they have already been reported.
        if hosts and info.data.get("resources") == ():
            raise WrongValue(_("must be set together with {name}", name="WXAUTH_RESOURCES"))
        return hosts

    @field_validator("wechat_fallback_url", mode="before")
    @classmethod
    def _default_fallback_url(cls, value: object, info: ValidationInfo) -> object:
        """Use WeChat's fallback host by default, but only if the base URL is WeChat's own.

        Otherwise, calls meant for another host, such as a simulated WeChat, would go to the real WeChat.
        """
        if value is None and info.data.get("wechat_base_url") == WECHAT_URL:
            return WECHAT_FALLBACK_URL
        return value

    @property
    def secret_keys(self) -> list[bytes]:
        """The current secret key, followed by the previous ones."""
        return [secrets.secret_key_bytes(key) for key in (self.secret_key, *self.secret_key_previous)]
