"""The rendering of a page for a browser: the page's language, cookies, template and Content-Security-Policy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
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
from wxauth.sites.requests import HINT_PARAMETER, HINTED_USER_PARAMETER
from wxauth.sites.responses import AUTHORIZE_PATH, Browser, is_web_view
from wxauth.web.cookies import cookie_in
from wxauth_guard.problems import preferred_language

# With these headers, caches do not store the response, and browsers do not send its URL as the referrer.
PRIVATE_HEADERS: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_MAX_URL_LENGTH: Final = 8192  # in characters; most proxies refuse longer URLs

PAGES_FOLDER: Final = Path(__file__).parent / "page"
# Logos are `data:` URLs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'"
)
OWN_FORMS: Final = "'self'"
# For a page whose form ends at a site, the policy has no `form-action`, because Chromium checks each redirect after a
# form, and wxauth cannot know the redirects that the site adds. Nobody can inject a form, because the templates escape
# all values, and the policy allows neither inline scripts nor scripts of other hosts.
ANYWHERE: Final = None
_WECHAT_NAME: Final = "MicroMessenger"  # The User-Agent of WeCom can contain this name, too.
_WECOM_NAME: Final = "wxwork"
_PHONE_NAMES: Final = re.compile(r"Mobi|Android|iPhone|iPad")
_GAP_IN_CHINESE: Final = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")
_UI_LOCALES: Final = re.compile(r"(?:^|&)ui_locales=([^&]*)")  # in a query or form, still encoded
_BROWSER_COOKIE: Final = "wxauth-browser"
_BROWSER_COOKIE_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # as `new_secret` makes it
LOGIN_COOKIE: Final = "wxauth-login"

# This parameter is for wxauth's pages. `scan` gives a web-view the QR code if WeChat's JavaScript bridge does not
# respond.
DOOR_PARAMETER: Final = "door"
SIGN_IN_PARAMETERS: Final = (
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "response_mode",
    "prompt",
    "max_age",
    "id_token_hint",
    "ui_locales",
    "resource",
)
# Other parameters change nothing, or belong in no link: a code, a token, personal data in `login_hint`.
LINKED_PARAMETERS: Final = frozenset(
    {*SIGN_IN_PARAMETERS, DOOR_PARAMETER, HINTED_USER_PARAMETER, "post_logout_redirect_uri"} - {HINT_PARAMETER}
)


class Link(NamedTuple):
    url: str
    text: str
    lang: str | None = None  # None for the language of the page


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(PAGES_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def language_of(request: Request, *, ui_locales: str | None = None) -> str:
    """Return the first supported language in `ui_locales`, or otherwise the language that the browser prefers."""
    requested = filter(None, map(find_language, (ui_locales or "").split()))
    return next(requested, None) or preferred_language(request.headers)


def host_cookie(settings: Settings, name: str) -> str:
    """Return the full name of a cookie. No host of the same domain can set `__Host-` (RFC 6265bis, section 4.1.3.2)."""
    return f"__Host-{name}" if is_https(settings) else name


def is_https(settings: Settings) -> bool:
    """Return whether browsers reach this service over https."""
    return settings.issuer.startswith("https:")


@dataclass(slots=True)
class Rendering:
    """The base class of `Pages`, which reads the browser from a request, and renders a page for this browser."""

    request: Request
    settings: Settings
    device: Device
    form: str  # still encoded; empty if the browser has posted none
    language: str = field(init=False)
    root: str = field(init=False)  # the path prefix under which browsers reach the service
    is_in_wechat: bool = field(init=False)  # on a phone or a computer; web-views and WeCom do not count
    is_on_a_phone: bool = field(init=False)  # or on a tablet
    is_in_phones_browser: bool = field(init=False)  # outside WeChat and WeCom

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
        """The browser that sends the request. Raises: InvalidRequest, if one of wxauth's cookies occurs twice."""
        cookie = cookie_in(self.request, host_cookie(self.settings, _BROWSER_COOKIE)) or ""
        in_web_view = is_web_view(self.request.headers.get("user-agent", ""))
        login_cookie = None if in_web_view else cookie_in(self.request, host_cookie(self.settings, LOGIN_COOKIE))
        if not _BROWSER_COOKIE_VALUE.fullmatch(cookie):  # wxauth has not made this cookie
            cookie = ""
        return Browser(self.device.ip, self.device.user_agent, cookie, login_cookie or "", is_web_view=in_web_view)

    def set_cookie(self, response: Response, value: str, name: str = _BROWSER_COOKIE) -> None:
        """Set a cookie that the browser deletes when the user closes the browser."""
        full_name, is_secure = host_cookie(self.settings, name), is_https(self.settings)
        response.set_cookie(full_name, value, path="/", secure=is_secure, httponly=True, samesite="lax")

    def redirect_to_get(self, path: str, encoded_parameters: str) -> Response | None:
        """Return a redirect to `path` with these parameters; None if the POST is not cross-site, or the URL too long.

        Browsers send a cross-site POST without wxauth's cookies, and a new cookie would break the browser's other
        tabs.
        """
        url = f"{self.root}{path}?{encoded_parameters}"
        if self.request.headers.get("sec-fetch-site") != "cross-site" or len(url) > _MAX_URL_LENGTH:
            return None
        # In contrast to `redirect_to`, RedirectResponse encodes characters of the form that a header cannot contain.
        return RedirectResponse(url, HTTPStatus.SEE_OTHER, PRIVATE_HEADERS)

    def _page(
        self,
        template: str,
        title: str,
        *,
        status: int = HTTPStatus.OK,
        form_action: str | None = "'none'",
        frame_ancestors: str = "'none'",
        data: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> Response:
        form_directive = "" if form_action is ANYWHERE else f"; form-action {form_action}"
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
            "Content-Security-Policy": f"{_POLICY}{form_directive}; frame-ancestors {frame_ancestors}",
            "Vary": "Accept-Language, User-Agent, Cookie",
        }
        if frame_ancestors == "'none'":
            headers["X-Frame-Options"] = "DENY"
        return Response(html, status_code=status, headers=headers, media_type="text/html")

    def _say(self, text: str, /, **values: object) -> str:
        # The Chinese texts have spaces around an inserted name or title, which a Chinese name does not need.
        translated = Text(text, **values).translated(self.language)
        return _GAP_IN_CHINESE.sub("", translated) if values.keys() & {"name", "title"} else translated

    def _own_url(self, page_id: str) -> str:
        return f"{self.root}{AUTHORIZE_PATH}/{page_id}"

    def _in_other_languages(self, path: str, query: str) -> list[Link]:
        # The parameters are not decoded, because a message can be about one that is malformed or occurs twice.
        repeated = "".join(
            f"{pair}&" for pair in query.split("&") if _name_in(pair) in LINKED_PARAMETERS - {"ui_locales"}
        )
        url = f"{path}?{repeated}ui_locales="
        if len(url) > _MAX_URL_LENGTH:
            return []
        return [Link(f"{url}{tag}", own_name(tag), tag) for tag in languages() if tag != self.language]


def _name_in(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])


def redirect_to(url: str) -> Response:
    """Return a redirect to a URL, which must already be encoded. The browser sends no referrer."""
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={**PRIVATE_HEADERS, "Location": url})


def site_source(redirect_uri: str) -> str:
    """Return the source that stands for the site of a redirect URI in a Content-Security-Policy."""
    scheme = scheme_of_app(redirect_uri)
    if scheme:
        return f"{scheme}:"
    url = urlsplit(redirect_uri)
    # A policy cannot contain an IPv6 address.
    return f"{url.scheme}:" if url.netloc.startswith("[") else f"{url.scheme}://{url.netloc}"
