"""What a URL is, how two URLs compare, and the types of URLs, hosts and paths in settings.

The guard's `is_http_url` says which texts are http or https URLs. The further rules for receivers are in
`outbound/urls.py`, and those for redirect URIs in `clients/redirect_uris.py`.

Errors never contain the value, because a URL can contain a password.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from posixpath import normpath
from typing import Annotated, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, SecretStr

from wxauth.i18n import Text, WrongValue, lazy_gettext as _
from wxauth.settings.addresses import Scheme, is_refused, numeric_addresses_of
from wxauth.settings.types import LAST_PORT, CommaList, checked, must_match
from wxauth_guard.urls import is_http_url, is_secure

MAX_URL: Final = 2048  # characters
_PLAIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?)"
    r"(?P<path>(?:/[A-Za-z0-9._~:/!$&'()*+,;=@%-]*)?)(?P<query>(?:\?[A-Za-z0-9._~:/!$&'()*+,;=@%?-]*)?)",
    re.ASCII,
)
# The groups are the scheme, the host with its port, and the rest.
_PARTS: Final = re.compile(r"(https?)://([^/?#]*)(.*)", re.ASCII | re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# The service's paths begin with these segments, which a test compares with the routes. `.well-known` is missing,
# because no file in `RootFiles` begins with a dot.
OWN_NAMES: Final = frozenset({"v1", "d", "docs", "openapi.json", "livez", "readyz", "metrics", "admin"})
_USER: Final = r"([^/?#@\[\]\t\r\n]*@)?"  # with its password
_HOST: Final = r"(\[[\da-fA-F:.]+\]|[\w.%-]+)"
_PORT: Final = ":[0-9]{1,5}"
_DATABASE_HOSTS: Final = rf"({_HOST}({_PORT})?(,{_HOST}({_PORT})?)*)?"
_HOST_AND_PORT: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?=[^:]*[a-z])[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|(?P<v4>[0-9.]+))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)  # a name has a letter, because digits and dots alone are an IPv4 address
_REDIS_HOSTS: Final = rf"{_USER}{_HOST}{_PORT}(,{_HOST}{_PORT})*"
_REDIS_FORMS: Final = (
    rf"rediss?://{_USER}{_HOST}({_PORT})?(/\d*)?(\?[^#@]*)?",
    rf"redis\+sentinel://{_REDIS_HOSTS}/[\w.-]+",  # the path is the name of the Sentinels' service
    rf"redis\+cluster://{_REDIS_HOSTS}/?",
    rf"unix://{_USER}/[^?#]+(\?[^#@]*)?",
)
_MUST_LOOK_LIKE: Final = _("must be a URL such as {form}. In the user name and password, percent-encode / : # ? @ [ ]")


def plain_url(url: str) -> re.Match[str] | None:
    """Match a URL in its plain form.

    The groups are `scheme`, `host` (with its port), `path` and `query` (with its `?`).

    In its plain form, a URL has a lower-case scheme and host, contains only characters that RFC 3986 allows, and has
    neither a user name nor a fragment.
    """
    # The pattern allows ports and IPv6 addresses that do not exist, so `is_http_url` checks them.
    return _PLAIN.fullmatch(url) if is_http_url(url) else None


def is_url_without_user(url: str) -> bool:
    """Return whether this is an http or https URL of at most `MAX_URL` characters without a user name.

    The URL may contain characters of any language, but no ASCII space, ASCII control character or backslash.
    """
    if len(url) > MAX_URL or re.search(r"[\x00-\x20\x7f\\]", url):
        return False
    return is_http_url(url) and "@" not in urlsplit(url).netloc


def host_of(url: str) -> str:
    """Return the host, with its port, of an http or https URL without a user name, to show or log it."""
    return re.split("[/?#]", url)[2]  # `https://host/path` is split into `https:`, an empty text, `host` and `path`


def as_compared(url: str) -> str:
    """Return the form in which URLs are compared, because clients can spell one URL in several ways.

    The scheme and host are in lower case, without a default port. If nothing follows the host, a slash is added.
    Everything else must match exactly. A text that is not an http or https URL is returned unchanged.
    """
    parts = _PARTS.fullmatch(url)
    if parts is None:
        return url
    scheme = parts[1].lower()
    host = parts[2].lower().removesuffix(f":{_DEFAULT_PORTS[scheme]}")
    return f"{scheme}://{host}{parts[3] or '/'}"


def is_below(url: str, issuer: str) -> bool:
    """Return whether a URL has the issuer's host and port, and a path that is the issuer's path, or below it."""
    host, path = _host_and_path(url)
    host_of_issuer, path_of_issuer = _host_and_path(issuer)
    return host == host_of_issuer and f"{path}/".startswith(f"{path_of_issuer}/")


def _host_and_path(url: str) -> tuple[tuple[str, int | None], str]:
    """In this form, `is_below` also recognizes a different spelling, such as `https://host:443/a/../v1`."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    path = normpath(f"/{unquote(parts.path)}").strip("/")
    return (host, port), (f"/{path}" if path else "")


def split_hosts(url: str) -> tuple[SplitResult, list[str]]:
    """Split a URL with one or several hosts. Return its parts with the first host, and all hosts with their ports.

    Python versions with the security fixes of 2025 refuse a URL in which an IPv6 address in brackets follows another
    host. Therefore, the hosts are separated first.
    """
    scheme, slashes, after_scheme = url.partition("://")
    authority = re.split("[/?#]", after_scheme, maxsplit=1)[0]
    user, at, host_list = authority.rpartition("@")
    hosts = host_list.split(",")
    return urlsplit(f"{scheme}{slashes}{user}{at}{hosts[0]}{after_scheme.removeprefix(authority)}"), hosts


def _checked_parts(url: str, pattern: str, example: str) -> SplitResult:
    refusal = WrongValue(Text(_MUST_LOOK_LIKE, form=example))
    if not re.fullmatch(pattern, url):
        raise refusal
    try:
        parts, hosts = split_hosts(url)
    except ValueError:
        # For example, `urlsplit` refuses a password with a character that Unicode normalization turns into a separator.
        raise refusal from None
    matches = [re.search(r":(\d+)$", host) for host in hosts]
    _check_ports(match[1] for match in matches if match is not None)
    return parts


def _check_ports(ports: Iterable[str]) -> None:
    if not all(port.isdecimal() and 0 < int(port) <= LAST_PORT for port in ports):
        raise WrongValue(_("must have ports from 1 to 65535"))


def _check_database_url(value: SecretStr) -> SecretStr:
    url = re.sub(r"^postgres(ql)?(\+asyncpg)?://", "postgresql://", value.get_secret_value())
    # If a password contains `/` or `?`, the user name and the beginning of the password may look like a host and port.
    # Therefore, the part after the host must not contain `@`, except in the path of a socket.
    parameter = "(host=/[^#&]*|[^#&@]*)"
    pattern = rf"postgresql://{_USER}{_DATABASE_HOSTS}(/[^?#@]*)?(\?{parameter}(&{parameter})*)?"
    parts = _checked_parts(url, pattern, "postgresql://user:password@host:5432/database")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.get("port"):
        ports = query["port"].split(",")
        hosts = query.get("host", "").split(",")
        _check_ports(ports)
        if len(ports) not in (1, len(hosts)):
            raise WrongValue(_("must have one port, or one port for each host"))
    return SecretStr(url)


def _check_url(value: str) -> None:
    # `://.*//` finds a second `//`, as in `https://https://host`, in which a scheme was pasted twice.
    if not is_http_url(value) or re.search(r"[\s?#@\\]|://.*//", value):
        raise WrongValue(
            _("must be a URL such as https://host or https://host/path, without a user name, query or fragment")
        )
    if value.endswith("/"):
        raise WrongValue(_("must be a URL without a trailing slash"))


def _check_secure_url(value: str) -> None:
    _check_url(value)
    if not is_secure(value):
        raise WrongValue(_("must use https, except for a loopback address"))


def _check_issuer(value: str) -> None:
    _check_secure_url(value)
    path = urlsplit(value).path
    # A proxy may remove the issuer's path from the path of a request. If the proxy does not, wxauth does. Therefore, no
    # path of the service may look as if it contained the issuer's path. The issuer's path must also be the same text
    # before and after decoding.
    if "%" in path or path.removeprefix("/").partition("/")[0] in {*OWN_NAMES, ".well-known"}:
        raise WrongValue(
            _(
                "must have a path that contains no percent-encoding and doesn't begin like one of the service's own "
                "paths, such as /v1 or /admin"
            )
        )


def _check_proxy_url(value: SecretStr) -> None:
    # `(?!:)` refuses a password without a user name.
    pattern = rf"http://(?!:){_USER}{_HOST}{_PORT}/?"
    _checked_parts(value.get_secret_value(), pattern, "http://user:password@host:3128")


def _check_receivers_proxy(value: SecretStr) -> None:
    pattern = rf"https?://(?!:){_USER}{_HOST}{_PORT}/?"
    _checked_parts(value.get_secret_value(), pattern, "http://user:password@host:3128, https://user:password@host:3129")


def _check_redis_url(value: SecretStr) -> None:
    example = "redis://host:6379/0, redis+sentinel://host:26379,host:26379/name, redis+cluster://host:6379,host:6379"
    _checked_parts(value.get_secret_value(), "|".join(_REDIS_FORMS), example)
    if value.get_secret_value().startswith("redis+"):
        return  # the pattern allows no options
    # The import takes a tenth of a second, and few commands need it.
    from redis.asyncio import ConnectionPool

    try:
        # This call checks the options, and opens no connection.
        ConnectionPool.from_url(value.get_secret_value()).make_connection()  # type: ignore[no-untyped-call]
    except Exception:  # redis-py raises errors of many types
        raise WrongValue(_("must contain only options that redis-py supports, with values of the right type")) from None


def _check_hook_url(value: str) -> None:
    if not is_url_without_user(value) or "#" in value:
        raise WrongValue(
            _(
                "must be a URL such as https://host/path, without a user name or fragment. On a private "
                "network, the URL can use http"
            )
        )
    parts = urlsplit(value)
    # Each connection checks the addresses of a host name. Here, only a host that is an address is checked.
    scheme: Scheme = "https" if parts.scheme == "https" else "http"
    addresses = numeric_addresses_of((parts.hostname or "").removesuffix("."))
    if any(is_refused(address, scheme) for address in addresses):
        raise WrongValue(
            _("must resolve to a public or private address. With http, it must resolve to a private address")
        )


def _check_origin(value: str) -> None:
    if value == "*":
        return
    _check_url(value)
    if urlsplit(value).path:
        raise WrongValue(_("must be origins such as https://admin.example.com, separated by commas"))


def _check_root_files(values: tuple[str, ...]) -> None:
    names = [value.partition(":")[0] for value in values]
    if not OWN_NAMES.isdisjoint(names) or len(set(names)) != len(names):
        raise WrongValue(_("must contain each name only once, and none of the service's own paths such as docs"))


def _check_host(value: str) -> None:
    match = _HOST_AND_PORT.fullmatch(value)
    if match is not None and int(match["port"] or 0) <= LAST_PORT:
        with suppress(ValueError):
            # The constructors raise ValueError if the text is not an address.
            if match["v6"]:
                IPv6Address(match["v6"])
            if match["v4"]:
                IPv4Address(match["v4"])
            return
    raise WrongValue(
        _("must be lower-case hosts such as claude.ai, each with its port if it has one, separated by commas")
    )


Url = Annotated[str, checked(_check_url)]
SecureUrl = Annotated[str, checked(_check_secure_url)]
IssuerUrl = Annotated[str, checked(_check_issuer)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database_url)]
ProxyUrl = Annotated[SecretStr, checked(_check_proxy_url)]
ReceiversProxyUrl = Annotated[SecretStr, checked(_check_receivers_proxy)]
RedisUrl = Annotated[SecretStr, checked(_check_redis_url)]
WebOrigin = Annotated[str, checked(_check_origin)]
HookUrl = Annotated[str, checked(_check_hook_url)]
PagePath = Annotated[
    str,
    must_match(
        "[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*",
        _("must be the path of a page such as pages/scan/scan, without a leading slash or a query"),
    ),
]
DomainFile = Annotated[
    str,
    must_match(
        "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}:[!-~]{1,1024}",
        _("must be the name and content of the file from WeChat's console, such as a1B2c3.txt:0f1e2d3c"),
    ),
]  # WeChat verifies a domain with the file
HostName = Annotated[str, checked(_check_host)]  # such as `claude.ai` or `127.0.0.1:8080`
RootFiles = Annotated[tuple[DomainFile, ...], CommaList, checked(_check_root_files)]
