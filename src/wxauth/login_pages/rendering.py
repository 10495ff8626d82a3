"""The rendering of a page for a browser: the page's language, cookies, template and Content-Security-Policy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus, urlsplit

from jinja2 import Environment, FileSystemLoader
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from wxauth.clients.redirect_uris import scheme_of_app
from wxauth.i18n import Text, find_language, languages, own_name
from wxauth.sessions.devices import WECHAT_ON_A_COMPUTER, Device
from wxauth.settings.settings import Settings
from wxauth.site_logins.responses import AUTHORIZE_PATH, Browser, is_web_view
from wxauth.web.cookies import cookie_in
from wxauth_guard.problems import preferred_language

SEE_OTHER: Final = 303
PRIVATE_HEADERS: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
"""The headers of a response that no cache stores, and whose URL the browser does not send as a referrer."""
_LONGEST_REDIRECT: Final = 8192
"""The maximum number of characters of a form that wxauth moves into the query of a redirect.

The links with which a page offers itself in other languages have the same limit. Most proxies refuse longer URLs.
"""

PAGES_FOLDER: Final = Path(__file__).parent / "page"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action {form_action}; frame-ancestors {frame_ancestors}"
)
"""The Content-Security-Policy of a page. It allows pictures in `data:` URLs, because logos are such URLs."""
_WECHAT_NAME: Final = "MicroMessenger"
"""The name of WeChat in the User-Agent of its browser. The User-Agent of WeCom can contain this name, too."""
_WECOM_NAME: Final = "wxwork"
"""The name of WeCom in the User-Agent of its browser."""
_PHONE_NAMES: Final = re.compile(r"Mobi|Android|iPhone|iPad")
"""The pattern of the names by which wxauth recognizes the User-Agent of a phone or tablet."""
_GAP_IN_CHINESE: Final = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")
"""The pattern of a space between two Chinese characters or punctuation marks."""
_UI_LOCALES: Final = re.compile(r"(?:^|&)ui_locales=([^&]*)")
"""The pattern of the parameter `ui_locales` in a query or form, still encoded."""
_BROWSER_COOKIE: Final = "wxauth-browser"
"""The name of the cookie that identifies a browser. `host_cookie` returns the full name."""
_BROWSER_COOKIE_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
"""The pattern of the values of the cookie `_BROWSER_COOKIE`, which `new_secret` creates."""
LOGIN_COOKIE: Final = "wxauth-login"
"""The name of the cookie that contains the secret of a browser's login. `host_cookie` returns the full name."""


class Link(NamedTuple):
    """A link in a page."""

    url: str
    text: str
    lang: str | None = None
    """The language of the text; None if it is the language of the page."""


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(PAGES_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def language_of(request: Request, *, ui_locales: str | None = None) -> str:
    """Return the first supported language in `ui_locales`, or otherwise the language that the browser prefers."""
    requested = filter(None, map(find_language, (ui_locales or "").split()))
    return next(requested, None) or preferred_language(request.headers)


def host_cookie(settings: Settings, name: str) -> str:
    """Return the full name of a cookie, which begins with `__Host-` if browsers use https.

    With the prefix `__Host-`, browsers accept the cookie only from this host and over https, so that no other host
    under the same domain can set it (RFC 6265bis, section 4.1.3.2).
    """
    return f"__Host-{name}" if is_https(settings) else name


def is_https(settings: Settings) -> bool:
    """Return whether browsers reach this service over https."""
    return settings.issuer.startswith("https:")


@dataclass(slots=True)
class Rendering:
    """The base class of `Pages`. It contains the browser of a request, and renders a page for this browser."""

    request: Request
    settings: Settings
    device: Device
    form: str
    """The form that the browser has posted, still encoded; empty if there is none."""
    language: str = field(init=False)
    """The language of the `ui_locales` in the query or form or, without them, the language that the browser prefers."""
    root: str = field(init=False)
    """The path prefix under which browsers reach the service."""
    is_in_wechat: bool = field(init=False)
    """Whether WeChat's browser shows the page, on a phone or a computer.

    Web-views of mini-programs do not count, and neither does WeCom.
    """
    is_on_a_phone: bool = field(init=False)
    """Whether a phone or a tablet shows the page."""
    is_in_phones_browser: bool = field(init=False)
    """Whether the browser of a phone or a tablet, outside WeChat and WeCom, shows the page."""

    def __post_init__(self) -> None:
        user_agent = self.request.headers.get("user-agent", "")
        has_wechat_name, has_wecom_name = _WECHAT_NAME in user_agent, _WECOM_NAME in user_agent
        self.is_in_wechat = has_wechat_name and not has_wecom_name and not is_web_view(user_agent)
        is_wechat_on_a_computer = WECHAT_ON_A_COMPUTER.search(user_agent) is not None
        has_phone_name = _PHONE_NAMES.search(user_agent) is not None
        self.is_on_a_phone = has_phone_name or (has_wechat_name and not is_wechat_on_a_computer)
        self.is_in_phones_browser = self.is_on_a_phone and not has_wechat_name and not has_wecom_name
        locales = _UI_LOCALES.search(f"{self.request.url.query}&{self.form}")
        self.language = language_of(self.request, ui_locales=None if locales is None else unquote_plus(locales[1]))
        self.root = self.request.scope.get("root_path", "").rstrip("/")

    @property
    def browser(self) -> Browser:
        """The browser that sends the request.

        Raises: InvalidRequest, if the request has one of wxauth's cookies twice.
        """
        cookie = cookie_in(self.request, host_cookie(self.settings, _BROWSER_COOKIE)) or ""
        in_web_view = is_web_view(self.request.headers.get("user-agent", ""))
        login_cookie = None if in_web_view else cookie_in(self.request, host_cookie(self.settings, LOGIN_COOKIE))
        if not _BROWSER_COOKIE_VALUE.fullmatch(cookie):  # wxauth has not made this cookie
            cookie = ""
        return Browser(self.device.ip, self.device.user_agent, cookie, login_cookie or "", is_web_view=in_web_view)

    def set_cookie(self, response: Response, value: str, name: str = _BROWSER_COOKIE) -> None:
        """Set a cookie without an expiry time. The browser deletes it when the user closes the browser."""
        full_name, is_secure = host_cookie(self.settings, name), is_https(self.settings)
        response.set_cookie(full_name, value, path="/", secure=is_secure, httponly=True, samesite="lax")

    def redirect_to_get(self, path: str, encoded_parameters: str) -> Response | None:
        """Return a redirect to `path`, after which the browser sends these parameters again, as a query.

        Browsers send a cross-site POST without wxauth's cookies, and a new cookie would break the browser's other tabs.
        After the redirect, the browser sends a GET with the cookies. The request must be a POST. Return None if it is
        not cross-site, or if the URL would be too long for most proxies.
        """
        if self.request.headers.get("sec-fetch-site") != "cross-site" or len(encoded_parameters) > _LONGEST_REDIRECT:
            return None
        # In contrast to `redirect_to`, RedirectResponse encodes characters of the form that a header cannot contain.
        return RedirectResponse(f"{self.root}{path}?{encoded_parameters}", SEE_OTHER, PRIVATE_HEADERS)

    def _page(
        self,
        template: str,
        title: str,
        *,
        status: int = 200,
        form_action: str = "'none'",
        frame_ancestors: str = "'none'",
        data: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> Response:
        """Return a page from one of the templates.

        `form_action` and `frame_ancestors` are the sources of these directives in the Content-Security-Policy. `data`
        contains the values that the script of the page reads, and `values` contains further values for the template.
        """
        context = {
            "title": title,
            "language": self.language,
            "root": self.root,
            "_": self._say,
            "data": None if data is None else to_json(data).decode(),
            **values,
        }
        html = _templates().get_template(f"{template}.html").render(context)
        headers = {
            **PRIVATE_HEADERS,
            "Content-Language": self.language,
            "Content-Security-Policy": _POLICY.format(form_action=form_action, frame_ancestors=frame_ancestors),
            "Vary": "Accept-Language, User-Agent, Cookie",
        }
        if frame_ancestors == "'none'":
            headers["X-Frame-Options"] = "DENY"
        return Response(html, status_code=status, headers=headers, media_type="text/html")

    def _say(self, text: str, /, **values: object) -> str:
        """Return a text in the language of the page, with these values.

        Chinese text has spaces around an inserted name or title. Remove them if the name or title is Chinese, too.
        """
        translated = Text(text, **values).translated(self.language)
        return _GAP_IN_CHINESE.sub("", translated) if values.keys() & {"name", "title"} else translated

    def _own_url(self, page_id: str) -> str:
        """Return the path of a page, to which the page appends the paths of its actions, such as `/cancel`."""
        return f"{self.root}{AUTHORIZE_PATH}/{page_id}"

    def _in_other_languages(self, path: str, query: str) -> list[Link]:
        """Return links to this page in the other languages, or no links if their URLs would be too long.

        If `path` is empty, the links lead to the path of this page.
        """
        other_parameters = _UI_LOCALES.sub("", query).lstrip("&")
        url = f"{path}?{other_parameters}{'&' if other_parameters else ''}ui_locales="
        if len(url) > _LONGEST_REDIRECT:
            return []
        return [Link(f"{url}{tag}", own_name(tag), tag) for tag in languages() if tag != self.language]


def redirect_to(url: str) -> Response:
    """Return a redirect to a URL, which must already be encoded. The browser sends no referrer."""
    return Response(status_code=SEE_OTHER, headers={**PRIVATE_HEADERS, "Location": url})


def redirect_sources(redirect_uri: str) -> str:
    """Return the sources that `form-action` must allow so that the browser follows a redirect to the site after a form.

    Browsers also check all further redirects. The site might redirect to another of its hosts. A site on the user's
    machine might redirect to another port, or from `127.0.0.1` to `localhost`, as Next.js does.
    """
    source = site_source(redirect_uri)
    if scheme_of_app(redirect_uri):
        return source
    return f"{source} https:" if source.startswith("https:") else f"{source} http://127.0.0.1:* http://localhost:*"


def site_source(redirect_uri: str) -> str:
    """Return the source that stands for the site of a redirect URI in a Content-Security-Policy."""
    scheme = scheme_of_app(redirect_uri)
    if scheme:
        return f"{scheme}:"
    url = urlsplit(redirect_uri)
    # A policy cannot contain an IPv6 address.
    return f"{url.scheme}:" if url.netloc.startswith("[") else f"{url.scheme}://{url.netloc}"
