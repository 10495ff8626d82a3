"""The grammar, comparison and display of the URIs that browsers return to after a login or a logout."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import urlencode, urlsplit

from wxauth.i18n import WrongValue, lazy_gettext as _
from wxauth.settings.types import LAST_PORT
from wxauth.settings.urls import MAX_URL, as_compared, host_of
from wxauth_guard.urls import is_http_url, is_loopback, is_secure

_MAX_URIS: Final = 100  # because each sign-in request, and each CORS request, is compared with them
_MAX_LOGGED: Final = 200  # not counting `?…` at the end
# RFC 3986 also allows `*`, which would look like a wildcard, and `#`, which begins a fragment.
_CHARACTERS: Final = r"[A-Za-z0-9._~:/?\[\]!$&'()+,;=%@-]*"
_URI: Final = re.compile(_CHARACTERS)
# The scheme is a domain in reverse order (RFC 8252, section 7.1).
_APP_SCHEME: Final = r"(?P<scheme>[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+):/"
_BEGINS_WITH_APP_SCHEME: Final = re.compile(_APP_SCHEME)
_APP_URI: Final = re.compile(f"{_APP_SCHEME}{_CHARACTERS}")
_WEB_SCHEMES: Final = ("https://", "http://")
# A URI with a user name does not match.
_AUTHORITY: Final = re.compile(
    r"""
    https?://
    (?: \[[0-9A-Fa-f:.]+\] | [A-Za-z0-9.-]+ )  # an IPv6 address, or another host
    (?: : (?P<port>[^/?@]*) )?  # before an @, it would not be a port, but a password
    (?=[/?]|\Z)  # before the path, the query, or the end
    """,
    re.VERBOSE,
)
_PORT: Final = re.compile("[1-9][0-9]{0,4}")
HOST_RULE: Final = _(
    "must have a host that contains only letters, digits, - and . (write other characters as "
    "xn--…), and must not contain a user name"
)
# A native app on the user's computer may use a different port each time (RFC 8252, section 7.3).
_ON_LOOPBACK: Final = re.compile(
    r"(?P<before_port>https?://(?:127(?:\.[0-9]{1,3}){3}|\[::1\]|(?P<localhost>localhost)))"
    r"(?::[0-9]{1,5})?"
    r"(?P<after_port>(?:[/?].*)?)"
)


def check_uris(uris: Sequence[str]) -> None:
    """Check a client's redirect URIs, or its logout URIs, before they are stored. Raises: WrongValue."""
    if len(uris) > _MAX_URIS:
        raise WrongValue(_("must contain at most {n} URIs", n=_MAX_URIS))
    for uri in uris:
        check_uri(uri)


def check_uri(uri: str) -> str:
    """Check that a client may register this URI, and return the URI. Raises: WrongValue, if it is not allowed."""
    if len(uri) > MAX_URL:
        raise WrongValue(_("must be up to {n} characters", n=MAX_URL))
    is_app = _BEGINS_WITH_APP_SCHEME.match(uri) is not None
    if not (is_app or uri.startswith(_WEB_SCHEMES)):
        raise WrongValue(
            _("must use https, http for a loopback address, or an app's own URL scheme such as com.example.app")
        )
    if "#" in uri:
        raise WrongValue(_("must not contain a fragment (#)"))
    if not is_app:
        _check_host_and_port(uri)
    if not _URI.fullmatch(uri):
        raise WrongValue(
            _("must contain only characters that a URI allows. Percent-encode all other characters. * isn't a wildcard")
        )
    if not (is_app or is_secure(uri)):
        raise WrongValue(_("must use https, except for a loopback address"))
    return uri


def _check_host_and_port(uri: str) -> None:
    authority = _AUTHORITY.match(uri)
    if authority is None:
        raise WrongValue(HOST_RULE)
    port = authority["port"]
    if port is not None and not (_PORT.fullmatch(port) and int(port) <= LAST_PORT):
        raise WrongValue(_("must have a port from 1 to {n}, or no port", n=LAST_PORT))
    if not is_http_url(uri):  # for example, the host is `[1::2::3]` or begins with a dot
        raise WrongValue(HOST_RULE)


def scheme_of_app(uri: str) -> str | None:
    """Return the scheme of a URI that opens a native app; None for any other URI."""
    app_uri = _APP_URI.fullmatch(uri)
    return None if app_uri is None else app_uri["scheme"]


def is_local(uri: str) -> bool:
    """Return whether a redirect URI is an http or https URI of the machine on which the browser runs."""
    return scheme_of_app(uri) is None and is_loopback(urlsplit(uri).hostname)


def is_registered(uri: str, registered: Iterable[str], *, allows_localhost: bool = False) -> bool:
    """Return whether this URI is one of the registered URIs. Only the port of a loopback address may differ.

    Set `allows_localhost` for clients with documents, because many of these contain `localhost`.
    """
    without_port = _without_port(uri, allows_localhost=allows_localhost)
    for each in registered:
        if each == uri:
            return True
        if without_port is not None and without_port == _without_port(each, allows_localhost=allows_localhost):
            return True
    return False


def _without_port(uri: str, *, allows_localhost: bool) -> tuple[str, str] | None:
    parts = _ON_LOOPBACK.fullmatch(uri)
    if parts is None or (parts["localhost"] and not allows_localhost):
        return None
    try:
        if urlsplit(uri).port == 0:  # no program can listen on port 0
            return None
    except ValueError:  # the port is above 65535
        return None
    return parts["before_port"], parts["after_port"]


def origin_of(uri: str) -> str:
    """Return the origin of a URI (RFC 6454), without the default port or, for the URI of a native app, its scheme."""
    scheme = scheme_of_app(uri)
    if scheme is not None:
        return scheme
    url = as_compared(uri)
    return f"{urlsplit(url).scheme}://{host_of(url)}"


def origin_shown(redirect_uris: Sequence[str], requested_uri: str | None = None) -> str | None:
    """Return the origin that a page shows for a site with these redirect URIs; None if the site has no redirect URI.

    It is that of the requested URI for an app or a loopback address, and otherwise that of the first redirect URI.
    """
    if requested_uri is not None and (is_local(requested_uri) or scheme_of_app(requested_uri) is not None):
        return origin_of(requested_uri)
    return origin_of(redirect_uris[0]) if redirect_uris else None


def loggable_uri(uri: str) -> str:
    """Return a URI for the log, cut, and without user name, password, query and fragment, which can be secret."""
    without_query = re.split(r"[?#]", uri, maxsplit=1)[0]
    loggable = re.sub(r"//[^/]*@", "//…@", without_query)[:_MAX_LOGGED]
    return loggable if without_query == uri else f"{loggable}?…"


def with_query(uri: str, parameters: Mapping[str, str]) -> str:
    separator = "&" if "?" in uri else "?"
    return f"{uri}{separator}{urlencode(parameters)}"
