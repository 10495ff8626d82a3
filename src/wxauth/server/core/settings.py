"""Settings: read and validated once, then frozen. Each is an environment variable with the prefix `WXAUTH_`."""

import difflib
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from wxauth.errors import Title
from wxauth.server.core.setting_types import (
    SECONDS,
    SECRETS_DIR,
    SERVICE_LINK,
    AnySeconds,
    AppId,
    AppKind,
    AppList,
    AppSecret,
    AppTitle,
    Audience,
    Claims,
    CommaList,
    ContactUri,
    DatabaseUrl,
    Days,
    Deprecation,
    Documents,
    DomainFile,
    ExemptNetworks,
    HookUrl,
    Issuer,
    JsonClaims,
    Logo,
    Lower,
    MaxSessions,
    Networks,
    OrNone,
    PagePath,
    PhonePolicy,
    Policy,
    Port,
    ProxyUrl,
    PushAesKey,
    PushToken,
    RateText,
    RedisUrl,
    Region,
    RootFiles,
    Seconds,
    SecretKey,
    SecretsFolder,
    SecureUrl,
    SignUp,
    SignUpRoles,
    TrailDays,
    UnionidPolicy,
    Url,
    WebhookSecret,
    WebOrigin,
    is_below,
    secret_key_bytes,
)
from wxauth.server.core.users import ClaimsTemplate, compile_claims

PREFIX: Final = "WXAUTH_"
ENV_FILE: Final = Path(".env")
WECHAT_URL: Final = "https://api.weixin.qq.com"
WECHAT_OPEN_URL: Final = "https://open.weixin.qq.com"
WECHAT_FALLBACK_URL: Final = "https://api2.weixin.qq.com"

_DEFAULT_ISSUER: Final = "http://127.0.0.1:8000"
_DEFAULT_AUDIENCE: Final = "wxauth"

# Kubernetes sets these variables for a Service named "wxauth" or "wxauth-…". WXAUTH_PORT is one of them.
_SERVICE_LINK_NAME = re.compile(r"WXAUTH_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")


class InvalidSettings(Exception):
    """Settings are wrong or missing. `problems` names each variable and what it must be, never its value."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


AnySettings = TypeVar("AnySettings", bound="DatabaseSettings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The description of a setting, in Markdown. `scripts/settings` writes the documentation from it."""

    en: str = field(kw_only=False)
    zh: str = field(kw_only=False)
    heading: Title | None = None
    """The heading of the group that begins with this setting."""
    default: str | None = None
    """The usual default, if the declared one depends on something else."""
    example: str | None = None
    """A value that `.env.example` shows, not commented out, for the operator to replace."""
    deprecation: Deprecation | None = None


class AppFields(BaseModel):
    """The fields of an app besides its id: in `APPS`, in the database, and in administrators' requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: AppKind = Field(default="mini_program", description="The kind of app at WeChat. Cannot be changed later.")
    title: OrNone[AppTitle] = Field(
        default=None, description="The name that administrators see, and people on the login pages."
    )
    logo: OrNone[Logo] = Field(
        default=None,
        description="Its picture on the login pages: a PNG, JPEG or WebP of at most 32 KiB, as a `data:` URL.",
    )
    unionid: OrNone[UnionidPolicy] = Field(
        default=None,
        description="Whether people may sign up without a unionid from WeChat. Null: `optional` for a "
        "`mini_program`, `required` for any other kind.",
    )
    app_secret: AppSecret = Field(description="The AppSecret from WeChat's console.")
    push_token: OrNone[PushToken] = Field(
        default=None,
        description="The Token from WeChat's message push settings. Without one, no messages are accepted.",
    )
    push_aes_key: OrNone[PushAesKey] = Field(
        default=None, description="The EncodingAESKey. With one, only encrypted messages are accepted."
    )
    push_forward: OrNone[HookUrl] = Field(
        default=None,
        description="The URL to which each message is handed on, as WeChat sent it: `https`, or `http` in a private "
        "network. Null: messages that do not concern wxauth are ignored.",
        examples=["https://shop.example.com/wechat"],
    )
    sign_up: OrNone[SignUp] = Field(
        default=None, description="Whether new users may sign up. Null: as in `WXAUTH_SIGN_UP`."
    )
    sign_up_roles: OrNone[SignUpRoles] = Field(
        default=None,
        description="The roles of new users. Null: those in `WXAUTH_SIGN_UP_ROLES`.",
        examples=[["member"]],
    )
    claims: OrNone[Claims] = Field(
        default=None,
        description="What is added to the access tokens of its logins, in place of `WXAUTH_CLAIMS`; `{}` adds nothing. "
        "Null: as in `WXAUTH_CLAIMS`.",
        examples=[{"role": "authenticated"}],
    )
    max_sessions: OrNone[MaxSessions] = Field(
        default=None,
        description="How many sessions one person may have in it: a login ends the oldest beyond that at once. Null: "
        "the newest hundred are kept.",
        examples=[1],
    )


class App(AppFields):
    """An app of WeChat's: a mini-program, a service account, a website or a mobile app."""

    app_id: AppId

    @field_validator("push_token")
    @classmethod
    def _no_push_without_messages(cls, token: PushToken | None, info: ValidationInfo) -> PushToken | None:
        if token is not None and info.data.get("kind") in ("website", "mobile_app"):
            raise ValueError("must be left out: WeChat pushes no messages to a website or a mobile_app")
        return token

    @field_validator("push_aes_key")
    @classmethod
    def _no_key_without_token(cls, key: PushAesKey | None, info: ValidationInfo) -> PushAesKey | None:
        if key is not None and "push_token" in info.data and info.data["push_token"] is None:
            raise ValueError("must be set together with push_token")
        return key

    @field_validator("push_forward")
    @classmethod
    def _no_forward_without_token(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is not None and "push_token" in info.data and info.data["push_token"] is None:
            raise ValueError("must be set together with push_token")
        return url

    @cached_property
    def claims_template(self) -> ClaimsTemplate | None:
        """Its own claims, compiled; None if it has none."""
        return compile_claims(self.claims) if self.claims else None

    @property
    def is_mini_program(self) -> bool:
        """Whether it is a mini-program, or a mini-game."""
        return self.kind == "mini_program"

    @property
    def has_wechat_token(self) -> bool:
        """Whether this kind of app gets an access token from WeChat, with which it can call WeChat's API."""
        return self.kind in ("mini_program", "official_account")

    @property
    def unionid_in_force(self) -> UnionidPolicy:
        """Whether a newcomer must have a unionid."""
        return self.unionid or ("optional" if self.is_mini_program else "required")

    @property
    def secrets(self) -> dict[str, str]:
        """The secret fields that are set, in plain text."""
        return {name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)}

    @property
    def plain_fields(self) -> dict[str, object]:
        """All other fields that are set, without id and title."""
        apart = ("app_id", "title")
        return {name: value for name, value in self if not isinstance(value, SecretStr | None) and name not in apart}


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

    database_url: Annotated[
        DatabaseUrl,
        Setting(
            "PostgreSQL URL, over TCP or a unix socket. May list several hosts. Add `?pgbouncer=true` behind a "
            "connection pooler in transaction mode, `?pgbouncer=prepared` behind one that keeps prepared "
            "statements.",
            "PostgreSQL 连接地址，支持 TCP 与 unix socket，可列多台主机。经事务模式的连接池时加 "
            "`?pgbouncer=true`；连接池能保留预编译语句时加 `?pgbouncer=prepared`。",
            heading=Title("Database and logs", "数据库与日志"),
            example="postgresql://wxauth@localhost:5432/wxauth",
        ),
    ]
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Lower,
        Setting("Lowest level logged.", "输出的最低日志级别。"),
    ] = "info"
    log_format: Annotated[
        Literal["json", "console"],
        Lower,
        Setting(
            "`console` is easier for people to read, and the default on a terminal.",
            "`console` 便于阅读，终端下默认使用。",
            default="json",
        ),
    ] = Field(default_factory=lambda: "console" if sys.stdout.isatty() else "json")
    log_addresses: Annotated[
        bool,
        Setting(
            "Whether the log's lines of logins and refreshes have the address (`ip`). Then the log is personal data: "
            "[which addresses, when](privacy.md#which-addresses-when).",
            "登录与刷新的日志行是否带上 IP（`ip`）。此时日志属于个人信息，见 "
            "[哪些 IP，何时](privacy.zh-CN.md#哪些-ip何时)。",
        ),
    ] = False
    log_sample: Annotated[
        int,
        Field(ge=1, le=1_000_000),
        Setting(
            "Of so many sessions, the log has the logins and refreshes of one, with `sample` in the line. New users, "
            "refusals and all else are always logged. Must be `1` with `LOG_ADDRESSES`, whose lines are the record: "
            "[logs](monitoring.md#logs).",
            "每多少个会话，日志只记其中一个的登录与刷新，行中带 `sample`。新用户、拒绝及其他内容总是记录。"
            "开启 `LOG_ADDRESSES` 时必须为 `1`，因为这些行就是留存的记录，见 [日志](monitoring.zh-CN.md#日志)。",
        ),
    ] = 1
    secrets_dir: Annotated[
        SecretsFolder,
        Setting(
            "Folder of settings stored as files, each named after its setting in lower case, such as "
            "`wxauth_secret_key`.",
            "以文件提供配置的目录，文件名为小写的配置名，如 `wxauth_secret_key`。",
        ),
    ] = SECRETS_DIR

    @field_validator("log_sample")
    @classmethod
    def _no_sample_of_the_record(cls, number: int, info: ValidationInfo) -> int:
        if number > 1 and info.data.get("log_addresses"):
            raise ValueError("must be 1 with WXAUTH_LOG_ADDRESSES, whose lines are the record of logins")
        return number

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the files named after settings ourselves.

        pydantic-settings ignores a link that leads out of the folder, as those of Vault's agent do.
        """
        folder = file_secret_settings.secrets_dir  # type: ignore[attr-defined]
        files = EnvSettingsSource(settings_cls)
        files.env_vars = _read_files(folder, [f"{PREFIX}{name.upper()}" for name in cls.model_fields]) if folder else {}
        return init_settings, env_settings, dotenv_settings, files


# Settings that several of the classes below have.
PublicUrl = Annotated[
    Issuer,
    Setting(
        "Public URL of the service, and the `iss` of its tokens. Must be https unless the host is loopback; "
        "may have a path; no trailing slash.",
        "服务的对外地址，也是令牌的 `iss`。除本机回环外须为 https，可带路径，末尾不带斜杠。",
        heading=Title("Tokens and sessions", "令牌与会话"),
    ),
]
TokenAudience = Annotated[
    Audience,
    Setting(
        "Audience (`aud`) of the access tokens. The guards of your other services must be given the same value.",
        "访问令牌的 audience（`aud`），各服务的 guard 须配置相同的值。",
    ),
]
AdminPage = Annotated[
    bool,
    Setting(
        "Whether the admin console is served at `/admin/`.",
        "是否开启管理后台 `/admin/`。",
        heading=Title("Admin console", "管理后台"),
    ),
]


PhoneRegion = Annotated[
    Region,
    Setting(
        "Country of phone numbers without a country code: those that staff types when searching, and those of imports.",
        "未写国家代码的手机号所属的国家或地区：用于客服与管理员的搜索，以及导入的文件。",
    ),
]


class PhoneSettings(DatabaseSettings):
    """The settings of `wxauth users list`."""

    phone_region: PhoneRegion = "CN"


class ConsoleSettings(DatabaseSettings):
    """The settings of `wxauth admin link`."""

    issuer: PublicUrl = _DEFAULT_ISSUER
    admin_page: AdminPage = False


class ClientCommandSettings(DatabaseSettings):
    """The settings of `wxauth clients add` and `set`."""

    audience: TokenAudience = _DEFAULT_AUDIENCE
    apps: Annotated[tuple[App, ...], AppList] = ()


class Settings(DatabaseSettings):
    """All settings of the service, in the order of the documentation."""

    app_id: Annotated[
        OrNone[AppId],
        Setting(
            "AppID of the mini-program, if there is only one. If `APPS` is not set either, add mini-programs with "
            "`wxauth apps add`.",
            "小程序的 AppID（只有一个小程序时）。本项与 `APPS` 均未设置时，用 `wxauth apps add` 添加小程序。",
            heading=Title("Mini-programs", "小程序"),
            example="",
        ),
    ] = None
    app_secret: Annotated[
        OrNone[AppSecret], Setting("AppSecret of that mini-program.", "该小程序的 AppSecret。", example="")
    ] = None
    apps: Annotated[
        tuple[App, ...],
        AppList,
        Setting(
            'Several mini-programs, in place of `APP_ID` and `APP_SECRET`: `[{"app_id": "…", "app_secret": "…"}, '
            "…]` in JSON. The first mini-program is the default. To receive message push, add `push_token` (Token); to "
            "accept only encrypted messages, also `push_aes_key` (EncodingAESKey), both as in WeChat's console; to "
            "hand messages on to a handler of yours, `push_forward` (its URL): [wechat.md](wechat.md). "
            '`"sign_up": "closed"` admits only existing users. For apps that are no mini-programs, add `kind`. Apps '
            "can also be added at run time: [doors.md](doors.md).",
            '多个小程序，代替 `APP_ID` 与 `APP_SECRET`：`[{"app_id": "…", "app_secret": "…"}, …]`（JSON），'
            "第一个小程序为默认。接收消息推送时另填 `push_token`（Token）；只收加密消息时再填 "
            "`push_aes_key`（EncodingAESKey），均与微信后台一致；要把消息转发给自己的处理程序，再填 "
            '`push_forward`（其地址）：[wechat.md](wechat.zh-CN.md)。`"sign_up": "closed"` 只允许已有的用户登录。'
            "小程序以外的应用另填 `kind`；也可在运行时添加应用，见 [doors.md](doors.zh-CN.md)。",
        ),
    ] = Field((), validate_default=True)

    secret_key: Annotated[
        SecretKey,
        Setting(
            "32 bytes in base64; generate it with `wxauth secret new`. Encrypts secrets in the database and signs "
            "refresh tokens: keep it safe.",
            "32 字节的 base64，用 `wxauth secret new` 生成。用于加密数据库中的敏感内容、签发刷新令牌，请妥善保管。",
            heading=Title("Secret keys", "密钥"),
        ),
    ]
    secret_key_previous: Annotated[
        tuple[SecretKey, ...],
        CommaList,
        Setting("Former secret keys, still accepted.", "以前用过的密钥，仍可解密与验证。"),
    ] = ()

    issuer: PublicUrl = _DEFAULT_ISSUER
    audience: TokenAudience = _DEFAULT_AUDIENCE
    access_token_ttl: Annotated[
        Seconds,
        Field(le=86400),
        Setting(
            "Lifetime of an access token. No access token outlives its session.", "访问令牌的有效期；不会晚于会话过期。"
        ),
    ] = 900
    refresh_token_ttl: Annotated[
        Seconds, Setting("Idle timeout of a session: it expires when unused for this long.", "会话闲置多久后失效。")
    ] = 2592000
    session_max_age: Annotated[
        Seconds,
        Setting("Maximum lifetime of a session, however often it is used.", "会话的最长寿命，无论使用是否频繁。"),
    ] = 31536000
    refresh_reuse_grace: Annotated[
        AnySeconds,
        Setting(
            "Grace period after a refresh token is rotated, during which the old one still gets its successor. "
            "Choose it longer than a phone waits for a lost answer, and than a database failover takes.",
            "刷新令牌轮换后的宽限期，期间旧令牌仍可换取其后继令牌；应长于手机等待响应的时间与数据库切换所需的时间。",
        ),
    ] = 60
    signing_key_max_age: Annotated[
        Seconds,
        Field(ge=3600),
        Setting("Age at which the key that signs access tokens is rotated.", "访问令牌的签名密钥使用多久后自动轮换。"),
    ] = 7776000

    wechat_base_url: Annotated[
        SecureUrl,
        Setting(
            "URL of WeChat's server API.", "微信服务端接口地址。", heading=Title("Calls to WeChat", "调用微信接口")
        ),
    ] = WECHAT_URL
    wechat_fallback_url: Annotated[
        OrNone[SecureUrl],
        Setting(
            "URL to use when `WECHAT_BASE_URL` cannot be connected to; empty for none. No default if "
            "`WECHAT_BASE_URL` is changed.",
            "`WECHAT_BASE_URL` 连接失败时改用的地址，留空为不启用；改了 `WECHAT_BASE_URL` 则默认不启用。",
            default=WECHAT_FALLBACK_URL,
        ),
    ] = Field(None, validate_default=True)
    wechat_open_url: Annotated[
        SecureUrl,
        Setting("URL of WeChat's own login pages, to which browsers go.", "微信登录页的地址，供浏览器跳转。"),
    ] = WECHAT_OPEN_URL
    wechat_timeout: Annotated[
        float,
        Field(gt=0, le=60),
        SECONDS,
        Setting("Time limit for a whole exchange with WeChat, retries included.", "与微信一次交互（含重试）的总时限。"),
    ] = 5.0
    wechat_proxy: Annotated[
        OrNone[ProxyUrl],
        Setting(
            "Forward proxy for all calls to WeChat, such as `http://user:password@host:3128`. User and password "
            "are optional, and must be percent-encoded. Proxies in other environment variables, such as "
            "`HTTPS_PROXY`, are not used.",
            "访问微信所经的正向代理，如 `http://user:password@host:3128`；用户名与密码可省略，"
            "其中的特殊字符须作百分号编码。不读取 `HTTPS_PROXY` 等其他环境变量中的代理。",
        ),
    ] = None

    phone_policy: Annotated[
        PhonePolicy,
        Setting(
            "What happens to a phone number that another user has verified: `move` takes it from that user, because "
            "the newest verification counts, `refuse` refuses it (`phone_taken`), `share` lets both users have it, "
            "`link` merges a new user of another mini-program into that user, under conditions that prevent account "
            "theft: [phone numbers](wechat.md#phone-numbers).",
            "手机号已由其他用户验证时：`move` 以最近一次验证为准，将号码从原用户处移走，`refuse` "
            "拒绝（`phone_taken`），`share` 允许共用，`link` "
            "在满足防盗号的条件时，将另一小程序的新用户并入该用户，条件见 [手机号](wechat.zh-CN.md#手机号)。",
            heading=Title("Users", "用户"),
        ),
    ] = "move"
    link_phone_days: Annotated[
        Days,
        Field(ge=1),
        Setting(
            "With `PHONE_POLICY` set to `link`: how recently that user must have verified the number with the "
            "phone button. Carriers reassign numbers after about 90 days: keep this setting well below 90.",
            "`PHONE_POLICY` 为 `link` 时，原用户须在此期限内用手机号按钮验证过该号码。运营商约 90 "
            "天后会将号码重新放出，取值应明显小于它。",
        ),
    ] = 60
    phone_check_openid: Annotated[
        bool,
        Setting(
            "Whether WeChat verifies that a phone code belongs to the user who sends it. Set `false` if the "
            "account may not use this check.",
            "是否由微信核对手机号 code 属于该用户；账号不支持时设为 `false`。",
        ),
    ] = True
    phone_region: PhoneRegion = "CN"
    risk_policy: Annotated[
        Policy,
        Setting(
            "What happens to a new user whom WeChat rates as a risk: `off` does not ask WeChat, `flag` records an "
            "event, `block` also bans the highest risk level. With `block`, each login of a new user waits for "
            "the rating, 2 s at most, until WeChat has given it once. If WeChat gives none, the user is let in "
            "and rated at the next login. Details: "
            "[risk, nicknames and pictures](wechat.md#risk-nicknames-and-pictures).",
            "新用户首次登录时是否查询微信安全等级：`off` 不查；`flag` 有风险则记事件；`block` "
            "另外封禁最高等级者，为此在微信给出结果之前，新用户每次登录最多等待 2 秒。微信未给出结果时放行，"
            "下次登录再查。详见 [风险、昵称与头像](wechat.zh-CN.md#风险昵称与头像)。",
        ),
    ] = "off"
    nickname_check: Annotated[
        Policy,
        Setting(
            "What happens to a new nickname that fails WeChat's content check: `off` does not check, `flag` "
            "records an event, `block` also refuses it. With `block`, a new nickname waits for the check, 2 s at "
            "most. Details: [risk, nicknames and pictures](wechat.md#risk-nicknames-and-pictures).",
            "新昵称是否经微信内容安全检测：`off` 不检测；`flag` 有问题则记事件；`block` 另外拒绝违规昵称，"
            "为此设置新昵称最多等待 2 秒。详见 [风险、昵称与头像](wechat.zh-CN.md#风险昵称与头像)。",
        ),
    ] = "off"
    avatar_check: Annotated[
        Policy,
        Setting(
            "What happens to a picture uploaded in a mini-program that fails WeChat's content check: `off` does not "
            "check, `flag` records an event, `block` also removes it. WeChat answers by message push, which must be "
            "set up. Details: [risk, nicknames and pictures](wechat.md#risk-nicknames-and-pictures).",
            "在小程序中上传的头像是否经微信内容安全检测：`off` 不检测；`flag` 有问题则记事件；"
            "`block` 另外删除违规头像。微信通过消息推送给出结果，须先配置消息推送。"
            "详见 [风险、昵称与头像](wechat.zh-CN.md#风险昵称与头像)。",
        ),
    ] = "off"
    sign_up: Annotated[
        SignUp,
        Setting(
            'Whether unknown people may sign up. `closed` refuses them (`sign_up_closed`). `"sign_up"` of an app '
            "in `APPS` takes precedence.",
            '是否允许未知用户注册；`closed` 时拒绝（`sign_up_closed`）。`APPS` 中各应用自己的 `"sign_up"` 优先。',
        ),
    ] = "open"
    sign_up_roles: Annotated[
        SignUpRoles,
        CommaList,
        Setting(
            "Roles that somebody who signs up has from the start, such as `member`; never `admin` or `support`. "
            'Imported users have those of the file. `"sign_up_roles": ["member"]` of an app in '
            "`APPS` takes precedence.",
            "新注册的用户一开始就具有的角色，如 `member`；不能是 `admin` 或 `support`。"
            '导入的用户以文件为准。`APPS` 中各应用自己的 `"sign_up_roles": ["member"]` 优先。',
        ),
    ] = ()
    sign_up_hook_url: Annotated[
        OrNone[HookUrl],
        Setting(
            "URL of a service of yours that is asked before somebody becomes a new user: "
            "[sign-up-hook.md](sign-up-hook.md). `https`, or `http` in a private network.",
            "新用户注册前询问的、你自己的服务的地址：[sign-up-hook.md](sign-up-hook.zh-CN.md)。须为 `https`，"
            "内网可用 `http`。",
        ),
    ] = None
    sign_up_hook_secret: Annotated[
        OrNone[WebhookSecret],
        Field(validate_default=True),
        Setting(
            "Signs these requests: `whsec_` followed by 24 to 64 random bytes in base64.",
            "对这些请求签名的密钥：`whsec_` 加上 24 至 64 个随机字节的 base64。",
        ),
    ] = None
    sign_up_hook_timeout: Annotated[
        float,
        Field(gt=0, le=10),
        SECONDS,
        Setting("Time limit for such a request.", "这种请求的时限。"),
    ] = 2.0
    sign_up_hook_failure: Annotated[
        Literal["refuse", "allow"],
        Lower,
        Setting(
            "What becomes of a newcomer if that service gives no answer: `refuse` (503 `sign_up_unavailable`) or "
            "`allow`.",
            "该服务没有回应时如何处理新用户：`refuse`（503 `sign_up_unavailable`）或 `allow`（允许注册）。",
        ),
    ] = "refuse"
    claims: Annotated[
        Claims,
        JsonClaims,
        Setting(
            'What is added to the access tokens of logins, in JSON: `{"role": "authenticated", "tier": '
            '"$attributes.tier"}`. See [attributes.md](attributes.md#claims). `"claims"` of an app in `APPS` takes '
            "precedence.",
            '登录的访问令牌中另加的声明（JSON）：`{"role": "authenticated", "tier": "$attributes.tier"}`，见 '
            '[attributes.md](attributes.zh-CN.md#声明)。`APPS` 中各应用自己的 `"claims"` 优先。',
        ),
    ] = {}
    consents: Annotated[
        dict[str, str],
        Documents,
        Setting(
            "Documents in force that users agree to, with their versions, such as `privacy:2026-05,terms:3`. "
            "Those that a user has not agreed to are listed in `consents_due`.",
            "现行的、须用户同意的文件及版本，如 `privacy:2026-05,terms:3`；尚未同意的会列在 `consents_due` 中。",
        ),
    ] = {}

    events_kept_days: Annotated[
        TrailDays,
        Setting(
            "How long the audit trail is kept: 180 or more, or `0` to keep it forever. `user.erased`, "
            "`user.merged` and `user.split` are always kept.",
            "审计记录保留多久，不小于 180；`0` 为永久保留。`user.erased`、`user.merged`、`user.split` 始终保留。",
            heading=Title("Retention", "数据保留"),
        ),
    ] = 0
    addresses_kept_days: Annotated[
        Days,
        Setting(
            "Age at which IP addresses in sessions, consents and events are truncated to their /24 (IPv6: /48) "
            "network; `0` for never.",
            "会话、同意记录与审计记录中的 IP 在多久后只保留 /24（IPv6 为 /48）网段；`0` 为不缩短。",
        ),
    ] = 0
    erasure_grace_days: Annotated[
        Days,
        Field(le=15),
        Setting(
            "How long users who erase their account may change their mind; `0` erases at once. Meanwhile they are "
            "signed out everywhere, and a login is `account_leaving`.",
            "用户注销账号后多久之内可以反悔；`0` 为立即删除。期间所有设备均已退出，登录返回 `account_leaving`。",
        ),
    ] = 0
    ended_sessions_kept_days: Annotated[
        Days,
        Field(ge=1),
        Setting(
            "How long ended sessions are kept, with their IP address and device. China's law on network logs "
            "(Cybersecurity Law, article 21) requires 180 days or more.",
            "已结束的会话（含 IP 与设备）保留多久。《网络安全法》第二十一条要求网络日志留存不少于六个月。",
        ),
    ] = 30

    scan_page: Annotated[
        PagePath,
        Setting(
            "Mini-program page that a scanned code opens, without a leading slash.",
            "扫码后打开的小程序页面，开头不带斜杠。",
            heading=Title("Scan login", "扫码登录"),
        ),
    ] = "pages/scan/scan"
    site_page: Annotated[
        PagePath,
        Setting(
            "Mini-program page that logs the person in to a site shown in a web-view, without a leading slash.",
            "在 web-view 中打开的网站请求登录时，小程序跳转到的页面，开头不带斜杠。",
        ),
    ] = "pages/authorize/authorize"
    scan_env: Annotated[
        Literal["release", "trial", "develop"],
        Lower,
        Setting(
            "Version of the mini-program that a scanned code opens.",
            "打开小程序的哪个版本：依次为正式版、体验版、开发版。",
        ),
    ] = "release"
    scan_code: Annotated[
        Literal["wxacode", "link"],
        Lower,
        Setting(
            "Code that a site shows: `wxacode` for WeChat's mini-program code, `link` for an ordinary QR code of "
            "a link to this service, whose prefix must be set up in WeChat's console.",
            "网页展示的码：`wxacode` 为小程序码；`link` 为指向本服务的普通二维码，"
            "须在微信后台配置“扫普通链接二维码打开小程序”。",
        ),
    ] = "wxacode"
    scan_entry: Annotated[
        Literal["camera", "any"],
        Lower,
        Setting(
            "`camera` accepts only codes scanned with the camera. `any` also accepts codes from an album or a "
            "chat, which makes phishing easy.",
            "`camera` 只接受相机直接扫码；`any` 也接受相册、聊天中转发来的码，容易被钓鱼利用。",
        ),
    ] = "camera"
    scan_link: Annotated[
        Literal["off", "scheme", "url"],
        Lower,
        Setting(
            "How a phone's browser outside WeChat opens the mini-program, for sites added with `--link`: `off`: not at "
            "all; `scheme`: by a plaintext scheme, for which `SCAN_PAGE` must be listed in WeChat's console; `url`: by "
            "a URL Link that WeChat makes for the app.",
            "以 `--link` 添加的网站，在微信之外的手机浏览器中如何打开小程序：`off` 不打开；`scheme` 用明文 Scheme，"
            "须先在微信后台为 `SCAN_PAGE` 登记；`url` 用微信为该应用生成的 URL Link。",
        ),
    ] = "off"
    scan_rate_limit: Annotated[
        RateText,
        Setting(
            "New scans, and presses of a button that leads to WeChat's page, from one browser's IP address.",
            "每个浏览器 IP 新建扫码与点击微信登录按钮的次数。",
        ),
    ] = "60/minute"
    scan_client_limit: Annotated[
        RateText, Setting("New scans started by one confidential client.", "每个机密客户端新建扫码的次数。")
    ] = "600/minute"
    scan_picture_limit: Annotated[
        RateText,
        Setting(
            "Mini-program codes requested from WeChat for one mini-program; beyond that, the ordinary QR code is "
            "shown.",
            "每个小程序向微信请求小程序码的次数，超出后改用普通二维码。",
        ),
    ] = "3000/minute"
    scan_admin_anywhere: Annotated[
        bool,
        Setting(
            "Whether administrators and support staff may scan a code that a browser in another network shows.",
            "管理员与客服能否扫描另一网络中的浏览器所展示的码。",
        ),
    ] = False
    web_session_ttl: Annotated[Seconds, Setting("Idle timeout of a website's session.", "网站会话闲置多久后失效。")] = (
        43200
    )
    web_session_max_age: Annotated[
        Seconds, Setting("Maximum lifetime of a website's session.", "网站会话的最长寿命。")
    ] = 2592000
    sso_ttl: Annotated[
        AnySeconds,
        Setting(
            "How long after a proof a browser may log in to the sites added with `--sso` without another one. A "
            "shorter value counts at once. `0` turns it off.",
            "浏览器证明身份后，多久之内登录以 `--sso` 添加的网站无需再次证明；调短立即生效。`0` 表示关闭。",
        ),
    ] = 28800
    link_check_file: Annotated[
        OrNone[DomainFile],
        Setting(
            "File with which WeChat verifies the prefix of ordinary QR code links, as `name:content`. Served "
            "under `/d/`.",
            "微信后台校验普通链接二维码前缀所用的文件，写作 `文件名:内容`，由 `/d/` 路径提供。",
        ),
    ] = None
    check_files: Annotated[
        RootFiles,
        Setting(
            "Files with which WeChat verifies a domain, as `name:content`, such as "
            "`MP_verify_a1B2.txt:a1B2`. Served directly below `ISSUER`; if it has a path, have the proxy map the "
            "host's root.",
            "微信校验域名所用的文件，写作 `文件名:内容`，如 `MP_verify_a1B2.txt:a1B2`，由 `ISSUER` "
            "根路径提供；`ISSUER` 带路径时请由代理映射域名根路径。",
        ),
    ] = ()

    redis_url: Annotated[
        OrNone[RedisUrl],
        Setting(
            "Redis that counts the limits for all processes together: `redis://host:6379/0`, `rediss://…`, "
            "`unix://…`, `redis+sentinel://host:26379,host:26379/name` or `redis+cluster://host:6379,host:6379`. "
            "Without it, and while it is unavailable, each process counts for itself. Details: "
            "[Redis](operations.md#redis).",
            "各进程共享限流计数的 Redis 地址：`redis://host:6379/0`、`rediss://…`、`unix://…`、"
            "`redis+sentinel://host:26379,host:26379/name` 或 `redis+cluster://host:6379,host:6379`。"
            "不设或其不可用时，各进程各自计数。详见 [Redis](operations.zh-CN.md#redis)。",
            heading=Title("Rate limits", "限流"),
        ),
    ] = None
    login_rate_limit: Annotated[
        RateText,
        Setting(
            "Logins and approved scans from one client IP address. An IPv6 address counts by its /64 and, at ten "
            "times the limit, by its /48.",
            "同一客户端 IP 的登录与批准扫码次数。IPv6 按 /64 计数，同时按 /48 以十倍上限计数。",
        ),
    ] = "600/minute"
    client_rate_limit: Annotated[
        RateText,
        Setting(
            "Requests of one client to `/v1/introspect`, to `/v1/users` and, if it is confidential, to `/v1/token`, "
            "each counted for itself.",
            "每个客户端请求 `/v1/introspect`、`/v1/users` 以及（机密客户端）`/v1/token` 的次数，三者分别计数。",
        ),
    ] = ""
    rate_limit_exempt: Annotated[
        ExemptNetworks,
        Setting(
            "IP addresses or networks exempt from the limits by address (`LOGIN_RATE_LIMIT`, `SCAN_RATE_LIMIT`), "
            "such as your company's own NAT.",
            "不计入按 IP 限流（`LOGIN_RATE_LIMIT`、`SCAN_RATE_LIMIT`）的 IP 或网段，如公司自己的出口 NAT。",
        ),
    ] = ()

    trusted_proxies: Annotated[
        Networks,
        Setting(
            "IP addresses or networks of the reverse proxies to trust. The client is the last `X-Forwarded-For` "
            "entry that is not one of them. `*` trusts whoever connects, for the last entry only. `0.0.0.0/0` is "
            "refused: it would trust what the client itself has written.",
            "受信任的反向代理的 IP 或网段；客户端取 `X-Forwarded-For` 中最后一个不属于它们的 IP。`*` "
            "表示任何直连者，只取最后一项；不接受 `0.0.0.0/0`，否则会采信客户端自己写的内容。",
            heading=Title("Proxies, browsers, traces", "代理、跨域与链路追踪"),
        ),
    ] = ("127.0.0.1",)
    cors_origins: Annotated[
        tuple[WebOrigin, ...],
        CommaList,
        Setting(
            "Origins of web pages that may call this service. Mini-programs need none.",
            "允许跨域调用的网页来源；小程序无需设置。",
        ),
    ] = ()
    otlp_url: Annotated[
        OrNone[Url],
        Setting(
            "URL of an OpenTelemetry collector that receives traces as OTLP over HTTP, such as "
            "`http://localhost:4318`. Needs `wxauth[otel]`, which the image includes.",
            "接收 OpenTelemetry 链路追踪的采集器地址（OTLP/HTTP），如 `http://localhost:4318`；需安装 "
            "`wxauth[otel]`，镜像中已含。",
        ),
    ] = None

    admin_page: AdminPage = False
    staff_reads: Annotated[
        bool,
        Setting(
            "Whether the audit trail records what staff read of people: `staff.searched` and `staff.read`.",
            "审计记录是否记下工作人员对用户资料的查看：`staff.searched` 与 `staff.read`。",
        ),
    ] = True
    admin_fresh_login: Annotated[
        AnySeconds,
        Setting(
            "How recent an administrator's login must be for changes with lasting effect (apps, keys, clients, "
            "webhooks) and for merging, splitting and erasing users and adding roles; `0` for any.",
            "管理员进行长期生效的修改（应用、密钥、客户端、Webhook），以及合并、拆分、删除用户或添加角色时，"
            "所要求的登录时限；`0` 为不限。",
        ),
    ] = 3600

    host: Annotated[
        str,
        Field(min_length=1),
        Setting(
            "Address to listen on. The image listens on `0.0.0.0` unless this is set.",
            "监听地址；镜像中未设置时为 `0.0.0.0`。",
            heading=Title("Server", "监听与进程"),
        ),
    ] = "127.0.0.1"
    port: Annotated[Port, Setting("Port to listen on.", "监听端口。")] = 8000
    workers: Annotated[
        int,
        Field(ge=1, le=256),
        Setting(
            "Number of worker processes. SIGHUP replaces them one by one: [operations.md](operations.md#workers).",
            "工作进程数。收到 SIGHUP 时按新配置逐个替换，见 [operations.md](operations.zh-CN.md#工作进程)。",
        ),
    ] = 1

    security_contact: Annotated[
        OrNone[ContactUri],
        Setting(
            "Where to report a vulnerability of this installation: `mailto:…`, `https://…` or `tel:…`. Served in "
            "`/.well-known/security.txt` (RFC 9116), valid for 360 days from each start.",
            "报告本部署安全问题的联系方式：`mailto:…`、`https://…` 或 `tel:…`。写入 `/.well-known/security.txt`"
            "（RFC 9116），有效期自每次启动起 360 天。",
        ),
    ] = None

    @field_validator("apps")
    @classmethod
    def _one_way_to_name_apps(cls, apps: tuple[App, ...], info: ValidationInfo) -> tuple[App, ...]:
        if "app_id" not in info.data:  # it is invalid, and has been reported
            return apps
        app_id, app_secret = info.data["app_id"], info.data["app_secret"]
        if apps and (app_id or app_secret):
            raise ValueError("must not be set together with WXAUTH_APP_ID and WXAUTH_APP_SECRET")
        if bool(app_id) != bool(app_secret):
            raise ValueError("WXAUTH_APP_ID and WXAUTH_APP_SECRET: both are required, or WXAUTH_APPS")
        if len({app.app_id for app in apps}) != len(apps):
            raise ValueError("must have each app_id once")
        return apps or ((App(app_id=app_id, app_secret=app_secret),) if app_id else ())

    @field_validator("issuer")
    @classmethod
    def _no_forward_to_ourselves(cls, issuer: str, info: ValidationInfo) -> str:
        for app in info.data.get("apps", ()):
            if app.push_forward is not None and is_below(app.push_forward, issuer):
                raise ValueError(f"push_forward of {app.app_id} in WXAUTH_APPS must not lead to wxauth itself")
        return issuer

    @field_validator("sign_up_hook_secret")
    @classmethod
    def _no_hook_without_secret(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None and info.data.get("sign_up_hook_url") is not None:
            raise ValueError("must be set together with WXAUTH_SIGN_UP_HOOK_URL")
        return secret

    @field_validator("wechat_fallback_url", mode="before")
    @classmethod
    def _fall_back_from_the_default(cls, value: object, info: ValidationInfo) -> object:
        return WECHAT_FALLBACK_URL if value is None and info.data.get("wechat_base_url") == WECHAT_URL else value

    @property
    def secret_keys(self) -> list[bytes]:
        """The current secret key, then the previous ones."""
        return [secret_key_bytes(key) for key in (self.secret_key, *self.secret_key_previous)]

    def access_token_lifetime(self, *, session_lifetime: int) -> int:
        """The lifetime of an access token in seconds: at least 1, and otherwise no longer than its session."""
        return max(1, min(self.access_token_ttl, session_lifetime))

    @cached_property
    def claims_template(self) -> ClaimsTemplate | None:
        """The claims of logins to apps without claims of their own, compiled; None if there are none."""
        return compile_claims(self.claims) if self.claims else None

    @property
    def deprecated(self) -> list[Deprecation]:
        """Of the settings that are set."""
        described = (it for name in self.model_fields_set for it in type(self).model_fields[name].metadata)
        return [it.deprecation for it in described if isinstance(it, Setting) and it.deprecation]

    def is_logged(self, session_id: UUID) -> bool:
        """Whether the log has the logins and refreshes of this session: all of it, or nothing."""
        return self.log_sample == 1 or session_id.int % self.log_sample == 0

    def added_in_log(self, ip: str | None, *, is_always_logged: bool = False) -> dict[str, Any]:
        """Further fields of a login's or refresh's line: the address by `LOG_ADDRESSES`, the sample by `LOG_SAMPLE`."""
        if self.log_addresses:
            return {"ip": ip}
        return {} if is_always_logged or self.log_sample == 1 else {"sample": self.log_sample}

    def may_sign_up(self, app: App) -> bool:
        """Whether unknown people may sign up with this app."""
        return (app.sign_up or self.sign_up) == "open"

    def roles_at_sign_up(self, app: App) -> tuple[str, ...]:
        """The roles of somebody who signs up with this app."""
        return self.sign_up_roles if app.sign_up_roles is None else app.sign_up_roles


def load_settings(
    kind: type[AnySettings], *, env_file: Path = ENV_FILE, secrets_dir: Path = SECRETS_DIR
) -> AnySettings:
    """Read settings from the environment, a `.env` file, and files named after them. The first that sets a value wins.

    The files named after settings are in the folder WXAUTH_SECRETS_DIR, by default in `secrets_dir`.

    Raises: InvalidSettings.
    """
    try:
        unknown = unknown_names(env_file=env_file)
        given = {name.upper(): value for name, value in _given(os.environ, env_file).items()}
        secrets_dir = Path(given.get(f"{PREFIX}SECRETS_DIR") or secrets_dir)
        names = [f"{PREFIX}{field.upper()}" for field in kind.model_fields]
        # Docker creates a folder if the file to be mounted does not exist.
        if folders := [name for name in names if name not in given and (secrets_dir / name.lower()).is_dir()]:
            raise InvalidSettings(f"{name}: must be a file, and is a folder" for name in folders)
        return settings_from(kind, _env_file=env_file, _secrets_dir=secrets_dir if secrets_dir.is_dir() else None)
    except InvalidSettings as exc:
        raise InvalidSettings([*exc.problems, *unknown]) from None
    except OSError as exc:
        raise InvalidSettings([f"{env_file}: cannot be read: {exc.strerror}"]) from None
    except UnicodeDecodeError:
        raise InvalidSettings([f"{env_file}: must be UTF-8 text"]) from None


def settings_from(kind: type[AnySettings], **values: Any) -> AnySettings:
    """Construct settings; `values` take precedence over the environment. Raises: InvalidSettings."""
    try:
        return kind(**values)
    except ValidationError as exc:
        raise InvalidSettings(_problem(error) for error in exc.errors(include_input=False)) from None
    except SettingsError as exc:
        named = re.search(r'field "(\w+)"', str(exc))
        name = PREFIX + named[1].upper() if named else "a setting"
        raise InvalidSettings([f"{name}: must be a readable file of UTF-8 text"]) from None


def unknown_names(environ: Mapping[str, str] = os.environ, *, env_file: Path | None = ENV_FILE) -> list[str]:
    """A line for the operator about each variable that has our prefix but is no setting."""
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


def _read_files(folder: Path, names: Collection[str]) -> dict[str, str | None]:
    """The texts of the files with these names, in lower case. Raises: InvalidSettings."""
    texts: dict[str, str | None] = {}
    for path in folder.iterdir():
        name = path.name.upper()
        if name in names and not path.is_dir():
            try:
                texts[name.lower()] = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise InvalidSettings([f"{name}: must be a readable file of UTF-8 text"]) from None
    return texts


def _given(environ: Mapping[str, str], env_file: Path | None) -> dict[str, str | None]:
    return {**(dotenv_values(env_file) if env_file else {}), **environ}


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK_NAME.fullmatch(name) or (name.endswith("_PORT") and SERVICE_LINK.match(value)))


def _problem(error: Mapping[str, Any]) -> str:
    location: tuple[str | int, ...] = error["loc"]
    message = str(error["msg"]).removeprefix("Value error, ")
    # Rewrites pydantic's messages into "must …".
    message = re.sub(r"^\w+ should ", "must ", message).partition(", unable to ")[0]
    if message.startswith(PREFIX):
        return message
    if error["type"] == "extra_forbidden":
        location, message = location[:-1], f"must have only {', '.join(App.model_fields)}"
    elif error["type"] == "missing":
        message = "is required"
    elif error["type"] == "string_pattern_mismatch" and location[-1] == "app_id":
        message = "must be an AppID, such as wx0123456789abcdef"
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location[1:])
    return f"{PREFIX}{str(location[0]).upper()}{inside}: {message}"
