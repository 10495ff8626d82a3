"""The types of settings: how they are parsed and validated. Errors never contain the value."""

import base64
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from posixpath import normpath
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints
from pydantic_core import PydanticUseDefault, from_json

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.server.core.addresses import is_refused, numeric_addresses_of
from wxauth.server.core.claims import check_claims
from wxauth.server.core.host_lists import split_hosts
from wxauth.server.core.resources import Resource, check_distinct
from wxauth.server.core.sealing import SECRET_KEY_BYTES
from wxauth.server.core.terminal import WrongValue
from wxauth.server.core.users import MAX_ROLES, ROLE, STAFF_ROLES
from wxauth.texts import is_http_url, is_secure

T = TypeVar("T")

SECRETS_DIR: Final = Path("/run/secrets")
SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")
"""The beginning of variables that Kubernetes sets for a Service. One named "wxauth" sets WXAUTH_PORT."""
CENTURY_DAYS: Final = 36600
CENTURY_SECONDS: Final = CENTURY_DAYS * 86400
OWN_NAMES: Final = frozenset({"v1", "d", "docs", "openapi.json", "livez", "readyz", "metrics", "admin"})
"""The first parts of the service's own paths. A test compares them with the routes."""
_SHORTEST_TRAIL: Final = 180
"""Days."""
_EXAMPLE_OF_APPS: Final = '[{"app_id": "wx…", "app_secret": "…"}]'
_EXAMPLE_OF_RESOURCES: Final = (
    '[{"resource": "https://mcp.example.com/mcp", "title": "…", "scopes": {"orders:read": "…"}}]'
)
_HOOK_URL: Final = re.compile(r"[^\x00-\x20\x7f#\\]{1,2048}")
_MAX_LOGO_BYTES: Final = 32 * 1024
_MAX_LOGO_SIDE: Final = 1024
"""Pixels: a phone decodes the whole picture."""
_DOCUMENT: Final = re.compile(r"([a-z][a-z0-9_-]{0,31}):([A-Za-z0-9._-]{1,64})")

_USER: Final = r"([^/?#@\[\]\t\r\n]*@)?"
_HOST: Final = r"(\[[\da-fA-F:.]+\]|[\w.%-]+)"
_PORT: Final = ":[0-9]{1,5}"
_HOSTS: Final = rf"({_HOST}({_PORT})?(,{_HOST}({_PORT})?)*)?"
_REDIS_HOSTS: Final = rf"{_USER}{_HOST}{_PORT}(,{_HOST}{_PORT})*"
_REDIS_FORMS: Final = (
    rf"rediss?://{_USER}{_HOST}({_PORT})?(/\d*)?(\?[^#@]*)?",
    rf"redis\+sentinel://{_REDIS_HOSTS}/[\w.-]+",
    rf"redis\+cluster://{_REDIS_HOSTS}/?",
    rf"unix://{_USER}/[^?#]+(\?[^#@]*)?",
)
_LIKE: Final = _("must be a URL like {form}, with / : # ? @ [ ] percent-encoded in user and password")


def secret_key_bytes(value: SecretStr) -> bytes:
    """The bytes of a secret key. Raises: ValueError, unless they are 32."""
    text = value.get_secret_value().translate({ord("-"): "+", ord("_"): "/"})
    with suppress(ValueError):
        if len(key := base64.b64decode(text, validate=True)) == SECRET_KEY_BYTES:
            return key
    raise WrongValue(_("must be 32 bytes in base64; generate them with 'wxauth secret new'"))


def picture_url(content: bytes) -> str:
    """A small picture, which is decoded, as a `data:` URL. Raises: ValueError."""
    from PIL import Image

    with suppress(Exception), Image.open(BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
        if len(content) <= _MAX_LOGO_BYTES and max(image.size) <= _MAX_LOGO_SIDE and image.format:
            image.load()
            kind = image.format.lower().replace("mpo", "jpeg")  # what Pillow calls a JPEG with a second picture in it
            return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    raise WrongValue(_("must be a PNG, JPEG or WebP of at most 32 KiB and 1024 × 1024"))


@lru_cache(maxsize=256)  # apps are read every five seconds, and each of their logos takes 15 ms
def check_logo(url: str) -> str:
    """Check the `data:` URL of a small picture. Raises: ValueError."""
    with suppress(ValueError):
        if picture_url(base64.b64decode(url.partition(",")[2])) == url:
            return url
    raise WrongValue(
        _(
            "must be a `data:` URL, in base64 and with its own type, of a PNG, JPEG or WebP of at most 32 KiB "
            "and 1024 × 1024"
        )
    )


def _split_at_commas(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _read_documents(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = [_DOCUMENT.fullmatch(item.strip()) for item in value.split(",") if item.strip()]
    documents = {each[1]: each[2] for each in found if each}
    if len(documents) != len(found):
        raise WrongValue(_("must be documents with versions like privacy:2026-05,terms:3, each document once"))
    return documents


def _json_like(example: str) -> BeforeValidator:
    """A list or an object that is read from JSON like the example; an empty one from an empty text."""
    kind = type(from_json(example))

    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            parsed = from_json(value) if value else kind()
        except ValueError:
            parsed = None
        if not isinstance(parsed, kind):
            raise WrongValue(_("must be JSON like {example}", example=example))
        return parsed

    return BeforeValidator(read)


def _taken_apart(url: str, form: str, like: str) -> SplitResult:
    """The parts of a URL of this form, with its first host, and ports that may be some. Raises: ValueError."""
    try:
        parts, hosts = split_hosts(url) if re.fullmatch(form, url) else (None, [])
    except ValueError:  # Unicode takes a character of the password's for one that separates
        parts = None
    if parts is None:
        raise WrongValue(Text(_LIKE, form=like))
    if not all(0 < int(port[1]) < 65536 for host in hosts if (port := re.search(r":(\d+)$", host))):
        raise WrongValue(_("must have ports from 1 to 65535"))
    return parts


def _check_database_url(value: SecretStr) -> SecretStr:
    url = re.sub(r"^postgres(ql)?(\+asyncpg)?://", "postgresql://", value.get_secret_value())
    # A password with `/` or `?` may begin like a port. So what follows the host has no `@`, but in a socket's path.
    form = rf"postgresql://{_USER}{_HOSTS}(/[^?#@]*)?(\?(host=/[^#&]*|[^#&@]*)(&(host=/[^#&]*|[^#&@]*))*)?"
    parts = _taken_apart(url, form, "postgresql://user:password@host:5432/database")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    listed = query["port"].split(",") if query.get("port") else []
    if not all(port.isdecimal() and 0 < int(port) < 65536 for port in listed):
        raise WrongValue(_("must have ports from 1 to 65535"))
    if len(listed) not in (0, 1, len(query.get("host", "").split(","))):
        raise WrongValue(_("must have one port, or as many as hosts"))
    return SecretStr(url)


def _refuse_unit(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*[A-Za-z]+\s*", value):
        raise WrongValue(_("must be a number of seconds, such as 900"))
    return value


def _check_url(value: str) -> None:
    if not is_http_url(value) or re.search(r"[\s?#@\\]|://.*//", value):
        raise WrongValue(_("must be a URL like https://host or https://host/path, without user, query or fragment"))
    if value.endswith("/"):
        raise WrongValue(_("must be a URL without a trailing slash"))


def _check_secure_url(value: str) -> None:
    _check_url(value)
    if not is_secure(value):
        raise WrongValue(_("must be https, unless the host is loopback"))


def _check_issuer(value: str) -> None:
    _check_secure_url(value)
    path = urlsplit(value).path
    if "%" in path or path.split("/")[1:2] in (["v1"], ["docs"], [".well-known"]):
        raise WrongValue(_("must have a path without percent-encoding, and none of the service's own (/v1, /docs)"))


def _check_proxy_url(value: SecretStr) -> None:
    form = rf"http://(?!:){_USER}{_HOST}{_PORT}/?"
    _taken_apart(value.get_secret_value(), form, "http://user:password@host:3128")


def _check_redis_url(value: SecretStr) -> None:
    like = "redis://host:6379/0, redis+sentinel://host:26379,host:26379/name, redis+cluster://host:6379,host:6379"
    _taken_apart(value.get_secret_value(), "|".join(_REDIS_FORMS), like)
    if value.get_secret_value().startswith("redis+"):
        return
    from redis.asyncio import ConnectionPool  # takes a tenth of a second, which few commands need

    try:
        ConnectionPool.from_url(value.get_secret_value()).make_connection()  # type: ignore[no-untyped-call]  # opens none
    except Exception:  # of many kinds
        raise WrongValue(_("must have only options that redis-py knows, each with a value of its type")) from None


def _check_events_kept(value: int) -> None:
    if 0 < value < _SHORTEST_TRAIL:
        raise WrongValue(_("must be {n} or more, or 0 to keep it forever", n=_SHORTEST_TRAIL))


def _check_hook_url(value: str) -> None:
    if not is_http_url(value) or not _HOOK_URL.fullmatch(value) or not {"@", "%"}.isdisjoint(urlsplit(value).netloc):
        raise WrongValue(
            _("must be a URL like https://host/path, without user and fragment; http in a private network")
        )
    parts = urlsplit(value)
    # Those of a name are checked at each connection.
    addresses = numeric_addresses_of((parts.hostname or "").removesuffix("."))
    if any(is_refused(address, "https" if parts.scheme == "https" else "http") for address in addresses):
        raise WrongValue(_("must have a public or private address; with http, a private one"))


def is_below(url: str, issuer: str) -> bool:
    """Whether a URL is the issuer's own: its host and port, and its path or one below it."""
    one, other = _place(url), _place(issuer)
    return one[:2] == other[:2] and f"{one[2]}/".startswith(f"{other[2]}/")


def _place(url: str) -> tuple[str, int | None, str]:
    parts = urlsplit(url)
    path = normpath(f"/{unquote(parts.path)}").strip("/")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return (parts.hostname or "").rstrip("."), port, f"/{path}" if path else ""


def webhook_secret_bytes(value: SecretStr) -> bytes:
    """The bytes of a secret for signatures. Raises: ValueError, unless they are 24 to 64."""
    prefix, text = value.get_secret_value()[:6], value.get_secret_value()[6:]
    with suppress(ValueError):
        if prefix == "whsec_" and 24 <= len(key := base64.b64decode(text, validate=True)) <= 64:
            return key
    raise WrongValue(_("must be whsec_ followed by 24 to 64 random bytes in base64"))


def _check_sign_up_roles(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > MAX_ROLES or not all(re.fullmatch(ROLE, role) for role in value):
        raise WrongValue(_("must be at most {n} roles like member or beta-tester, separated by commas", n=MAX_ROLES))
    if not STAFF_ROLES.isdisjoint(value):
        raise WrongValue(
            _("must not have {roles}, which newcomers must never get", roles=" or ".join(sorted(STAFF_ROLES)))
        )
    return tuple(dict.fromkeys(value))


def _check_region(value: str) -> str:
    from phonenumbers import SUPPORTED_REGIONS  # takes a tenth of a second, which few commands need

    if value.upper() not in SUPPORTED_REGIONS:
        raise WrongValue(_("must be the two letters of a country, such as CN"))
    return value.upper()


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("*",):
        return value
    try:
        items = tuple(str(ip_network(item, strict=False)) if "/" in item else str(ip_address(item)) for item in value)
    except ValueError:
        raise WrongValue(_("must be addresses or networks like 10.0.0.0/8, separated by commas, or * alone")) from None
    if any(item.endswith("/0") for item in items):  # all are trusted: the first entry counts, which the client writes
        raise WrongValue(_("must be networks of the proxies, not all addresses; * alone trusts any last entry"))
    return items


def _check_exempt(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        networks = tuple(ip_network(item, strict=False) for item in value)
    except ValueError:
        raise WrongValue(_("must be addresses or networks like 203.0.113.0/24, separated by commas")) from None
    if any(network.prefixlen == 0 for network in networks):
        raise WrongValue(
            _("must be networks of your own, not all addresses; for no limit, leave LOGIN_RATE_LIMIT empty")
        )
    return tuple(map(str, networks))


def _check_origin(value: str) -> None:
    if value == "*":
        return
    _check_url(value)
    if urlsplit(value).path:
        raise WrongValue(_("must be origins like https://admin.example.com, separated by commas"))


def _check_root_files(values: tuple[str, ...]) -> None:
    names = [value.partition(":")[0] for value in values]
    if not OWN_NAMES.isdisjoint(names) or len(set(names)) != len(names):
        raise WrongValue(_("must have each name once, and no path of the service's own such as docs"))


def _check_secrets_folder(value: Path) -> None:
    if value != SECRETS_DIR and not os.access(value, os.R_OK | os.X_OK):  # the default folder may be missing
        raise WrongValue(_("must be a readable folder"))


def _ignore_service_link(value: object) -> object:
    if isinstance(value, str) and SERVICE_LINK.match(value):
        raise PydanticUseDefault
    return value


def _checked(check: Callable[[T], object]) -> AfterValidator:
    """A value that this function takes, which raises ValueError for any other."""

    def validate(value: T) -> T:
        check(value)
        return value

    return AfterValidator(validate)


def _form(pattern: str, refusal: Text) -> AfterValidator:
    """A text, or a secret, of this form."""

    def check(value: str | SecretStr) -> None:
        if not re.fullmatch(pattern, value if isinstance(value, str) else value.get_secret_value()):
            raise WrongValue(refusal)

    return _checked(check)


# Parsing from text.
CommaList = BeforeValidator(_split_at_commas)
Documents = BeforeValidator(_read_documents)
AppList = _json_like(_EXAMPLE_OF_APPS)
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
OrNone = Annotated[T | None, BeforeValidator(lambda value: None if value == "" else value)]
"""A value, or none where the text is empty."""

AnySeconds = Annotated[int, Field(ge=0, le=CENTURY_SECONDS), BeforeValidator(_refuse_unit)]
Seconds = Annotated[int, Field(ge=1, le=CENTURY_SECONDS), BeforeValidator(_refuse_unit)]
Days = Annotated[int, Field(ge=0, le=CENTURY_DAYS)]
TrailDays = Annotated[Days, _checked(_check_events_kept)]

AppId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
AppSecret = Annotated[
    SecretStr,
    _form(r"\S+", _("must not be empty or contain white space")),
    Field(json_schema_extra={"minLength": 1}),
]
# WeChat's page accepts letters and digits. Other printable characters are accepted in case WeChat ever does.
PushToken = Annotated[
    SecretStr,
    _form("[!-~]{3,32}", _("must be the Token of WeChat's message push settings: 3 to 32 letters and digits")),
]
PushAesKey = Annotated[
    SecretStr,
    _form(
        "[A-Za-z0-9+/]{43}", _("must be the EncodingAESKey of WeChat's message push settings: 43 letters and digits")
    ),
]
SecretKey = Annotated[SecretStr, _checked(secret_key_bytes)]

Url = Annotated[str, _checked(_check_url)]
SecureUrl = Annotated[str, _checked(_check_secure_url)]
Audience = Annotated[str, Field(min_length=1)]
Issuer = Annotated[str, _checked(_check_issuer)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]
ProxyUrl = Annotated[SecretStr, _checked(_check_proxy_url)]
RedisUrl = Annotated[SecretStr, _checked(_check_redis_url)]
Networks = Annotated[tuple[str, ...], CommaList, AfterValidator(_check_networks)]
ExemptNetworks = Annotated[tuple[str, ...], CommaList, AfterValidator(_check_exempt)]
WebOrigin = Annotated[str, _checked(_check_origin)]

Policy = Annotated[Literal["off", "flag", "block"], Lower]
PhonePolicy = Annotated[Literal["move", "refuse", "share", "link"], Lower]
AppTitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Logo = Annotated[str, AfterValidator(check_logo)]
HookUrl = Annotated[str, _checked(_check_hook_url)]
WebhookSecret = Annotated[SecretStr, _checked(webhook_secret_bytes)]
SignUp = Annotated[Literal["open", "closed"], Lower]
Claims = Annotated[dict[str, Any], _checked(check_claims)]
JsonClaims = _json_like('{"role": "authenticated"}')
MaxSessions = Annotated[int, Field(ge=1, le=100, strict=True)]
SignUpRoles = Annotated[tuple[str, ...], AfterValidator(_check_sign_up_roles)]
AppKind = Annotated[Literal["mini_program", "official_account", "website", "mobile_app"], Lower]
UnionidPolicy = Annotated[Literal["required", "optional"], Lower]
Region = Annotated[str, AfterValidator(_check_region)]
RateText = Annotated[
    str,
    _form(
        r"([1-9]\d{0,8}/(second|minute|hour|day))?",
        _("must be a rate like 600/minute (or second, hour, day), or empty for no limit"),
    ),
]
PagePath = Annotated[
    str,
    _form(
        "[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*",
        _("must be a page like pages/scan/scan, without a leading slash and without a query"),
    ),
]
SecretsFolder = Annotated[Path, _checked(_check_secrets_folder)]
Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(_ignore_service_link)]
# The name that WeChat's console gives the file, and its content.
DomainFile = Annotated[
    str,
    _form(
        "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}:[!-~]{1,1024}",
        _("must be name:content of the file from WeChat's console, like a1B2c3.txt:0f1e2d3c"),
    ),
]
ContactUri = Annotated[
    str,
    _form(
        r"mailto:[^\s@]+@[^\s@]+|tel:\+[\d-]+|https://[^\s]+",
        _("must be a URI like mailto:security@example.com or https://example.com/security"),
    ),
]
Resources = Annotated[tuple[Resource, ...], _json_like(_EXAMPLE_OF_RESOURCES), AfterValidator(check_distinct)]


def _check_host(value: str) -> None:
    """Check a host, perhaps with a port. One without letters must be an address."""
    form = r"(?:\[([0-9a-f:.]+)\]|(?=[^:]*[a-z])[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|([0-9.]+))(?::([1-9][0-9]{0,4}))?"
    with suppress(ValueError):
        if (found := re.fullmatch(form, value)) and int(found[3] or 0) < 65536:
            _address = found[1] and IPv6Address(found[1]), found[2] and IPv4Address(found[2])
            return
    raise WrongValue(_("must be hosts like claude.ai in lower case, with a port if there is one, separated by commas"))


HostName = Annotated[str, _checked(_check_host)]
JsHosts = Annotated[tuple[HostName, ...], Field(max_length=100)]
RootFiles = Annotated[tuple[DomainFile, ...], CommaList, _checked(_check_root_files)]
