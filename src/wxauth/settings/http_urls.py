"""The grammar of the http and https URLs that operators and clients enter, and the comparison of such URLs."""

import re
from posixpath import normpath
from typing import Final
from urllib.parse import unquote, urlsplit

from wxauth_guard.urls import is_http_url

MAX_URL: Final = 2048
"""The maximum number of characters in a URL."""
_PLAIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?)"
    r"(?P<path>(?:/[A-Za-z0-9._~:/!$&'()*+,;=@%-]*)?)(?P<query>(?:\?[A-Za-z0-9._~:/!$&'()*+,;=@%?-]*)?)",
    re.ASCII,
)
"""The pattern of a URL in its plain form, which `plain_url` describes."""
_PARTS: Final = re.compile(r"(https?)://([^/?#]*)(.*)", re.ASCII | re.IGNORECASE)
"""The pattern of a URL in three groups: the scheme, the host with its port, and the rest."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def plain_url(url: str) -> re.Match[str] | None:
    """Match a URL in its plain form. Return None for any other text.

    The groups of the match are `scheme`, `host` (with its port), `path` and `query` (with its question mark). In its
    plain form, a URL has a lower-case scheme and host, contains only characters that RFC 3986 allows, and has neither a
    user name nor a fragment.
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
    """Return the host of an http or https URL, with the port if the URL contains one, to show or log it.

    The URL must not contain a user name.
    """
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
    """Return whether a URL belongs to the issuer.

    Such a URL has the issuer's host and port, and its path is the issuer's path, or is below that path.
    """
    host, path = _host_and_path(url)
    host_of_issuer, path_of_issuer = _host_and_path(issuer)
    return host == host_of_issuer and f"{path}/".startswith(f"{path_of_issuer}/")


def _host_and_path(url: str) -> tuple[tuple[str, int | None], str]:
    """Return a URL's host with its port, and its decoded path, without `..` and without a final slash.

    If the URL contains no port, the port is the default of its scheme. In this form, `is_below` also recognizes a URL
    that is spelled differently, such as `https://host:443/a/../v1`.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    path = normpath(f"/{unquote(parts.path)}").strip("/")
    return (host, port), (f"/{path}" if path else "")
