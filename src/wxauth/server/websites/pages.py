"""The pages for browsers: plain HTML, a style sheet and a small script, all served by this service."""

import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from fastapi import Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.problems import Language, preferred_language
from wxauth.server.clients.clients import is_registered, origin_of, origin_shown
from wxauth.server.clients.models import Client
from wxauth.server.core.settings import App, Settings
from wxauth.server.core.users import UserFields
from wxauth.server.users.bodies import is_own_picture
from wxauth.server.users.callers import DeviceDep
from wxauth.server.web.dependencies import SettingsDep
from wxauth.server.web.edge import PROBLEM_KEY, cookie_in
from wxauth.server.websites.authorize import (
    AUTHORIZE_PATH,
    Browser,
    Mistake,
    Onward,
    PressesUsedUp,
    SentBack,
    SiteRequest,
    StartedScan,
    Unanswerable,
    is_web_view,
)
from wxauth.server.websites.doors import SCAN_LASTS, Door
from wxauth.server.websites.granting import PageState
from wxauth.server.websites.links import TryAgain
from wxauth.server.websites.oauth_requests import LONGEST_REDIRECT, OAuthError, Parameters, parse_parameters
from wxauth.server.websites.rows import ClientRemoved, SiteLogin
from wxauth.server.websites.texts import TEXTS
from wxauth.server.websites.visits import is_open_on_computers
from wxauth.texts import is_loopback

ASSETS_PATH: Final = "/v1/pages"
SEE_OTHER: Final = 303

_FOLDER: Final = Path(__file__).parent / "page"
_ASSETS: Final = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "post.js": "text/javascript",
    "web-view.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action {form_action}; frame-ancestors {frame_ancestors}"
)
FAILURES: Final = (NotFound, OAuthError, Unanswerable, ClientRemoved, SentBack, RateLimited, StorageUnavailable)
"""What a browser gets a page for, or is sent back with."""
DOOR: Final = "door"
"""A parameter of ours at `/v1/authorize`: `scan` forces the page with the code, if WeChat's bridge did not answer."""
_IN_WECHAT: Final = "MicroMessenger"
_IN_WECOM: Final = "wxwork"
CONFIRMED: Final = "confirmed"
"""The field of the page that asks whether to log out."""
HINT: Final = "id_token_hint"
"""The site's parameter that the page of a person has in its forms: it has their name and number, so none is stored."""
_KEPT_AT_LOG_OUT: Final = ("client_id", "post_logout_redirect_uri", "state", "ui_locales")
VISIT_PAGES: Final = {"snapshot": True, "again": True, "over": True, "done": False}
"""The pages shown after a visit to WeChat's page, each with whether it has a button to try again."""
_ON_A_PHONE: Final = re.compile(r"Mobi|Android|iPhone|iPad")
_WECHAT_ON_A_COMPUTER: Final = re.compile(r"(?:Windows|Mac)Wechat")
_GAP_IN_CHINESE: Final = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")
_NOBODYS_PORTRAIT: Final = (
    '<svg viewBox="0 0 72 72" width="72" height="72" fill="currentColor">'
    '<circle cx="36" cy="28" r="12"/><path d="M12 64a24 18 0 0 1 48 0z"/></svg>'
)
_TAGS: Final[Mapping[Language, str]] = {"en": "en", "zh": "zh-CN"}
_BROWSER: Final = "wxauth-browser"
"""The cookie that identifies a browser."""
_LOGIN: Final = "wxauth-login"
"""The cookie of a browser's login."""
_COOKIE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class Asset(NamedTuple):
    """A file that the pages load."""

    content: bytes
    media_type: str
    etag: str


@cache
def find_asset(name: str) -> Asset | None:
    """The file of this name that the pages load; None if there is none."""
    if name not in _ASSETS:
        return None
    content = (_FOLDER / name).read_bytes()
    return Asset(content, f"{_ASSETS[name]}; charset=utf-8", etag=f'"{sha256(content).hexdigest()[:32]}"')


def language_of(request: Request, *, ui_locales: str | None = None) -> Language:
    """The language of a page: the one that the site requests, otherwise the one that the browser prefers."""
    for locale in (ui_locales or "").split():
        found = re.match(r"(en|zh)\b", locale.lower().replace("_", "-"))
        if found:
            return "zh" if found[1] == "zh" else "en"
    return preferred_language(request.headers)


def host_cookie(settings: Settings, name: str) -> str:
    """The full name of a cookie.

    With this prefix, browsers accept it only from this host and over https, and no neighbour under the same domain can
    set it (RFC 6265bis, 4.1.3.2).
    """
    return f"__Host-{name}" if is_https(settings) else name


def is_https(settings: Settings) -> bool:
    """Whether browsers reach this service by https."""
    return settings.issuer.startswith("https:")


@dataclass(slots=True)
class Pages:
    """What the browser of a request gets: a page in its language, or the way on. It is a dependency, made of others."""

    request: Request
    settings: SettingsDep
    device: DeviceDep
    language: Language = field(init=False)
    root: str = field(init=False)
    """The path under which the service is reached, escaped."""
    is_in_wechat: bool = field(init=False)
    """Whether WeChat's own browser shows the page, on a phone or a computer, and no mini-program or WeCom."""
    is_on_a_phone: bool = field(init=False)
    is_in_phones_browser: bool = field(init=False)
    """Whether a phone's browser outside WeChat and WeCom shows the page."""

    def __post_init__(self) -> None:
        user_agent = self.request.headers.get("user-agent", "")
        is_of_wechat, is_of_wecom = _IN_WECHAT in user_agent, _IN_WECOM in user_agent
        self.is_in_wechat = is_of_wechat and not is_of_wecom and not is_web_view(user_agent)
        # Not as one pattern with a lookahead: for a User-Agent of 64 KiB that repeats WeChat's name, it took 0.4 s.
        is_on_a_computer = _WECHAT_ON_A_COMPUTER.search(user_agent.rpartition(_IN_WECHAT)[2]) is not None
        self.is_on_a_phone = (is_of_wechat and not is_on_a_computer) or _ON_A_PHONE.search(user_agent) is not None
        self.is_in_phones_browser = self.is_on_a_phone and not is_of_wechat and not is_of_wecom
        self.language = language_of(self.request)
        self.root = escape(self.request.scope.get("root_path", "").rstrip("/"))

    @property
    def browser(self) -> Browser:
        """The browser that sends the request. Raises: InvalidRequest."""
        cookie = cookie_in(self.request, host_cookie(self.settings, _BROWSER)) or ""
        in_web_view = is_web_view(self.request.headers.get("user-agent", ""))
        login = None if in_web_view else cookie_in(self.request, host_cookie(self.settings, _LOGIN))
        known = cookie if _COOKIE.fullmatch(cookie) else ""
        return Browser(self.device.ip, self.device.user_agent, known, login or "", is_web_view=in_web_view)

    async def form(self) -> str:
        """The form that the browser has posted, still encoded."""
        return (await self.request.body()).decode(errors="replace")

    def parameters(self, text: str) -> Parameters:
        """The parameters in a query or a form, which may name the language of the page. Raises: OAuthError."""
        parameters = parse_parameters(text)
        self.language = language_of(self.request, ui_locales=parameters.get("ui_locales"))
        return parameters

    async def answer(self, work: Awaitable[Onward | Response], *, gone: str = "visit_gone") -> Response:
        """The answer to a browser: to where it goes on, or a page. `gone` is the one for what there is no more."""
        try:
            answer = await work
        except FAILURES as exc:
            return self.of_failure(exc, gone=gone)
        return self.sent(answer) if isinstance(answer, Onward) else answer

    def of_failure(self, failure: Exception, *, gone: str = "visit_gone") -> Response:
        """The answer to one of `FAILURES`. The log names it, if it says to try again."""
        match failure:
            case NotFound():
                return self.message(gone, status=404)
            case SentBack():
                return self.sent(failure.onward(self.settings))
            case Unanswerable():
                return self._unanswerable(failure)
            case RateLimited() | StorageUnavailable():
                self.request.scope[PROBLEM_KEY] = failure
                if isinstance(failure, PressesUsedUp):
                    return self.message("used_up", status=failure.status)
                page = self.message("limited" if isinstance(failure, RateLimited) else "away", status=failure.status)
                if failure.retry_after is not None:
                    page.headers["Retry-After"] = str(failure.retry_after)
                return page
            case ClientRemoved():
                return self._mistake(Mistake.CLIENT)
        return self._mistake(Mistake.REQUEST)

    def set_cookie(self, response: Response, value: str, name: str = _BROWSER) -> None:
        """Set a cookie that the browser keeps until it is closed."""
        full_name, is_secure = host_cookie(self.settings, name), is_https(self.settings)
        response.set_cookie(full_name, value, path="/", secure=is_secure, httponly=True, samesite="lax")

    def sent(self, onward: Onward) -> Response:
        """Send the browser on: by a redirect, or by a page whose form it posts to the site.

        If it has a new login, it keeps the value until it is closed.
        """
        url, form = onward.url, onward.form
        if form is None:
            response = redirect_to(f"{self.request.scope.get('root_path', '')}{url}" if url.startswith("/") else url)
        else:
            body = f"""
<h1>{self._text("going_back")}</h1>
<p class="origin">{escape(origin_of(url) or "")}</p>
<form method="post" action="{escape(url)}">{_hidden(form)}
<button class="button">{self._text("go_on")}</button></form>"""
            response = self._page(
                self._text("going_back"),
                body,
                script="post.js",
                form_action=_redirect_source(url),
                frame_ancestors=_site_source(url),  # a site may ask in a frame of its own, by prompt=none
            )
        if onward.login is not None:
            self.set_cookie(response, onward.login, _LOGIN)
        return response

    def by_get(self, path: str, text: str) -> Response | None:
        """A redirect by which the browser sends a form once more as a query; None if it need not.

        The browser sends a cross-site POST without our cookies, and a new cookie would break its other tabs. After a
        redirect, it sends a GET with them.
        """
        if self.request.headers.get("sec-fetch-site") != "cross-site" or len(text) > LONGEST_REDIRECT:
            return None
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return RedirectResponse(f"{self.request.scope.get('root_path', '')}{path}?{text}", SEE_OTHER, headers=headers)

    def code(
        self,
        asked: SiteRequest,
        started: StartedScan,
        parameters: Parameters,
        *,
        app: App | None,
        link_target: str | None,
    ) -> Response:
        """The page that shows the code and its state. A phone, which cannot scan its own screen, unfolds the code.

        With `link_target`, a button that opens WeChat is first, and after it the field for the number. `app` is the
        mini-program that opens; None if it is unknown.
        """
        text, root, seconds = self._text, self.root, int(SCAN_LASTS.total_seconds())
        is_phone, own_url = self.is_on_a_phone, self._own_url(started.secret)
        on_a_phone = "_on_a_phone" if is_phone else ""
        texts = TEXTS[self.language]
        states = {state: texts.get(f"{state}{on_a_phone}", texts[state]) for state in PageState}
        picture = f"""<div class="code"><img src="{root}/v1/scans/{started.scene}/code" alt="{text("picture")}"
{' loading="lazy"' if is_phone else ""}></div>"""
        typed = f"""<span class="typing"><span class="typed">{started.user_code}</span>\
<button class="copy" type="button" data-copied="{text("copied")}" hidden>{text("copy")}</button></span>"""
        state = f"""<p class="status" role="status">{escape(states[PageState.WAITING].format(seconds=seconds))}</p>
<a class="button renew" href="{root}{escape(_url(parameters))}" hidden>{text("renew")}</a>
<noscript>
<p>{text("no_script")}</p><a class="button second" href="{own_url}/next">{text("go_on")}</a>
</noscript>"""
        by_code = f'<p class="type-first">{typed}</p>\n{state}'
        other = f'<p class="quiet">{text("with_another_device")}</p>\n{picture}'
        if not is_phone:
            by_computer = ""
            if is_open_on_computers(asked.client):
                by_computer = f'<a class="button second" href="{own_url}/wechat">{text("by_computer")}</a>\n'
            what, ways = (
                "how",
                f"""{picture}
{state}
{by_computer}<p class="quiet">{text("typed")} {typed}</p>""",
            )
        elif link_target:
            what, ways = (
                "opens",
                f"""{self._link_forms(own_url)}
<details><summary>{text("another_way")}</summary>
<p class="quiet">{text("typed")}</p>{by_code}<hr>{other}
</details>""",
            )
        else:
            what, ways = (
                "type",
                f"""{by_code}
<details><summary>{text("another_device")}</summary>
{other}
</details>""",
            )
        logo = f'<img class="logo" src="{app.logo}" width="56" height="56" alt="">\n' if app and app.logo else ""
        what_to_do = text(f"{what}_by_app", app=app.title) if app and app.title else text(what)
        content = f"""{logo}<p>{what_to_do}</p>
{ways}
<p class="warning">{text(f"warning{on_a_phone}")}</p>
{self._footer(own_url, asked, parameters)}"""
        data = {"stateUrl": f"{own_url}/state", "nextUrl": f"{own_url}/next", "texts": states}
        attributes = f' data-state="waiting" data-expires-in="{seconds}"{_data(data)}'
        form_action = _form_action_of_link(asked.redirect_uri, link_target) if link_target else "'none'"
        return self._of_site(
            asked.client, asked.redirect_uri, content, attributes, script="page.js", form_action=form_action
        )

    def number(self, again: TryAgain, page_id: str, *, target: str | None) -> Response:
        """The page after a number that is wrong, or that cannot be right yet: to type it, or to open WeChat again."""
        page, own_url = again.page, self._own_url(escape(page_id))
        status = "number_wrong" if again.is_wrong else "number_missing"
        content = f"""<p class="status" role="alert">{self._text(status)}</p>
{self._link_forms(own_url, has_button=target is not None, is_number_first=again.is_wrong)}
{_links(self._way_back(own_url, page.title))}"""
        form_action = _form_action_of_link(page.redirect_uri, target)
        return self._of_site(page, page.redirect_uri, content, form_action=form_action)

    def account(self, asked: SiteRequest, page_id: str, parameters: Parameters) -> Response:
        """The page with one button. Without a tap on a button first, WeChat would only show a snapshot of the site."""
        own_url = self._own_url(page_id)
        content = f"""<a class="button" href="{own_url}/wechat">{self._text("log_in_with_wechat")}</a>
{self._footer(own_url, asked, parameters)}"""
        return self._of_site(asked.client, asked.redirect_uri, content)

    def person(self, asked: SiteRequest, person: UserFields, page_id: str, parameters: Parameters) -> Response:
        """The page of a browser with a login: a button to go on to the site as the person it shows."""
        own_url, text = self._own_url(page_id), self._text
        name, issuer = (person.nickname or "").strip(), self.settings.issuer
        go_on = self._named("go_on_as", name=name) if name else text("go_on")
        picture = f'<span class="portrait" aria-hidden="true">{escape(name[:1]) or _NOBODYS_PORTRAIT}</span>'
        if is_own_picture(person.avatar_url, issuer):
            url = f"{self.root}{escape(person.avatar_url.removeprefix(issuer))}"
            picture = f'<img class="portrait" src="{url}" width="72" height="72" alt="">'
        hint = _hidden({HINT: parameters[HINT]} if HINT in parameters else {})
        content = f"""{picture}
<p class="name">{escape(name) or text("no_name")}</p>
<form method="post" action="{own_url}/continue">{hint}<button class="button">{go_on}</button></form>
<form method="post" action="{own_url}/another">{hint}<button class="link">{text("another")}</button></form>
<p class="warning">{text("not_you")}</p>
{self._footer(own_url, asked, parameters)}"""
        form_action = f"'self' {_redirect_source(asked.redirect_uri)}"
        return self._of_site(asked.client, asked.redirect_uri, content, form_action=form_action)

    def log_out(self, person: UserFields, client: Client | None, parameters: Parameters, field: str) -> Response:
        """The page that asks whether to end the browser's login. `field` proves that the answer is the page's."""
        title, name = self._text("log_out_title"), (person.nickname or "").strip() or TEXTS[self.language]["no_name"]
        kept = {each: parameters[each] for each in _KEPT_AT_LOG_OUT if each in parameters}
        body = f"""
<h1>{title}</h1>
<p>{self._named("log_out", name=name)}</p>
<form method="post" action="{self.root}/v1/end_session">{_hidden({**kept, CONFIRMED: field})}
<button class="button">{self._text("log_out_button")}</button></form>
{_links(self._in_other_language("", kept))}"""
        url = kept.get("post_logout_redirect_uri")
        leads_back = client is not None and url is not None and is_registered(url, client.logout_uris)
        allowed = f"'self' {_redirect_source(url)}" if leads_back and url is not None else "'self'"
        return self._page(title, body, form_action=allowed)

    def visit(self, name: str, *, page_id: str) -> Response:
        """The page shown after a visit to WeChat's page, one of `VISIT_PAGES`."""
        button = f'<a class="button" href="{self._own_url(page_id)}/wechat">{self._text("try_again")}</a>'
        return self.message(f"visit_{name}", more=button if VISIT_PAGES[name] else "")

    def web_view(self, asked: SiteRequest, parameters: Parameters) -> Response:
        """The page that makes the surrounding mini-program open its own page, with the site's request."""
        # Encoded as encodeURIComponent does, because that is all a mini-program can decode.
        sent = {name: parameters[name] for name in parameters if name != DOOR}
        query = urlencode(sent, quote_via=quote, safe="!~*'()")
        code_url, text = f"{self.root}{_url({**parameters, DOOR: Door.SCAN})}", self._text
        content = f"""<p>{text("in_mini_program")}</p>
<button class="button open" type="button">{text("log_in")}</button>
<noscript><a class="button" href="{escape(code_url)}">{text("log_in_by_code")}</a></noscript>"""
        data = {"url": f"/{self.settings.site_page}?{query}", "codeUrl": code_url}
        return self._of_site(asked.client, asked.redirect_uri, content, _data(data), script="web-view.js")

    def message(self, name: str, *, about: Sequence[str] = (), more: str = "", status: int = 200) -> Response:
        """A page with a message, optionally with lines of HTML `about` whom or what it is, and with `more` HTML."""
        title = self._text(f"{name}_title")
        lines = "".join(f'<p class="quiet">{line}</p>' for line in about)
        return self._page(title, f"<h1>{title}</h1><p>{self._text(name)}</p>{lines}{more}", status=status)

    def instructions(self, name: str) -> Response:
        """A page that says what to do, for whoever opens its URL: `device` or `link`."""
        self.language = language_of(self.request, ui_locales=self.request.query_params.get("ui_locales"))
        return self.message(name, more=_links(self._in_other_language("", {})))

    def _unanswerable(self, refusal: Unanswerable) -> Response:
        """The page for a request whose redirect URI cannot be trusted: it names the site, and the URI received."""
        about = []
        if refusal.site is not None:
            title, origin = refusal.site.title or refusal.site.name, origin_shown(refusal.site)
            about.append(self._text("asking_site", site=title if origin is None else f"{title}, {origin}"))
        if refusal.received is not None:
            about.append(self._text("received", received=refusal.received or "—"))
        return self._mistake(refusal.mistake, *about)

    def _mistake(self, mistake: Mistake, *about: str) -> Response:
        return self.message("mistake", about=[self._text(mistake), *about], status=400)

    def _of_site(
        self, site: Client | SiteLogin, redirect_uri: str, content: str, attributes: str = "", **options: Any
    ) -> Response:
        """A page on which a person logs in to a site. It names the site, and its origin.

        On a loopback address, where any port is good, the origin has the port that was asked for.
        """
        title, uris = self._named("log_in_to", title=site.title), site.redirect_uris
        shown = redirect_uri if not uris or is_loopback(urlsplit(redirect_uri).hostname) else uris[0]
        body = f'\n<h1>{title}</h1>\n<p class="origin">{escape(origin_of(shown))}</p>\n{content}'
        return self._page(title, body, attributes, **options)

    def _page(
        self,
        title: str,
        body: str,
        attributes: str = "",
        *,
        status: int = 200,
        script: str = "",
        form_action: str = "'none'",
        frame_ancestors: str = "'none'",
    ) -> Response:
        tag, assets = _TAGS[self.language], f"{self.root}{ASSETS_PATH}"
        module = script and f'<script type="module" src="{assets}/{script}"></script>'
        html = f"""<!doctype html>
<html lang="{tag}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>{title}</title>
<link rel="icon" href="{assets}/icon.svg">
<link rel="stylesheet" href="{assets}/page.css">
{module}
</head>
<body><main{attributes}>{body}</main></body>
</html>
"""
        headers = {
            "Cache-Control": "no-store",
            "Content-Language": tag,
            "Content-Security-Policy": _POLICY.format(form_action=form_action, frame_ancestors=frame_ancestors),
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept-Language, User-Agent, Cookie",
        }
        if frame_ancestors == "'none'":
            headers["X-Frame-Options"] = "DENY"
        return Response(html, status_code=status, headers=headers, media_type="text/html")

    def _text(self, name: str, /, **values: object) -> str:
        """A text as HTML, with these values in it."""
        return escape(TEXTS[self.language][name].format(**values))

    def _named(self, name: str, /, **values: object) -> str:
        """A text with a name in it, without the spaces around the name, where Chinese has none."""
        return _GAP_IN_CHINESE.sub("", self._text(name, **values))

    def _own_url(self, page_id: str) -> str:
        return f"{self.root}{AUTHORIZE_PATH}/{page_id}"

    def _link_forms(self, own_url: str, *, has_button: bool = True, is_number_first: bool = False) -> str:
        """The button that opens WeChat, and the field for the number that the phone shows then."""
        first, second = '"button"', '"button second"'
        button, send = (second, first) if is_number_first else (first, second)
        press = f"<button class={button}>{self._text('log_in_with_wechat')}</button>"
        opening = f'<form method="post" action="{own_url}/link">{press}</form>'
        typing = f"""<form class="number" method="post" action="{own_url}/number">
<label for="number">{self._text("type_number")}</label>
<input id="number" name="number" inputmode="numeric" autocomplete="off" pattern="[0-9 ]*" maxlength="12" required>
<button class={send}>{self._text("go_on")}</button>
</form>"""
        forms = [opening, typing] if has_button else [typing]
        return "\n".join(reversed(forms) if is_number_first else forms)

    def _footer(self, own_url: str, asked: SiteRequest, parameters: Parameters) -> str:
        """The way back to the site without a login, and the same page in the other language."""
        other = self._in_other_language(f"{self.root}{AUTHORIZE_PATH}", parameters)
        return _links(self._way_back(own_url, asked.client.title), other)

    def _way_back(self, own_url: str, title: str | None) -> str:
        return f'<a href="{own_url}/cancel">{self._named("back_to", title=title)}</a>'

    def _in_other_language(self, path: str, parameters: Mapping[str, str]) -> str:
        """The link to this page in the other language; "" if its URL would be too long. No path: the page's own."""
        tag = _TAGS["en" if self.language == "zh" else "zh"]
        query = urlencode({**parameters, "ui_locales": tag})
        if len(query) > LONGEST_REDIRECT:
            return ""
        return f'<a href="{path}?{escape(query)}" lang="{tag}">{self._text("other_language")}</a>'


PagesDep = Annotated[Pages, Depends(Pages)]


def redirect_to(url: str) -> Response:
    """Redirect the browser to a URL, without a referrer."""
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=SEE_OTHER, headers={**headers, "Location": url})


def _form_action_of_link(redirect_uri: str, target: str | None) -> str:
    return " ".join(filter(None, ("'self'", target, _redirect_source(redirect_uri))))


def _redirect_source(redirect_uri: str) -> str:
    """What `form-action` must allow for a redirect to the site after a form was sent.

    A browser checks all redirects that follow, and the site may redirect on to another of its own hosts.
    """
    source = _site_source(redirect_uri)
    return f"{source} https:" if source.startswith("https:") else source


def _site_source(redirect_uri: str) -> str:
    """The site, as a policy names it."""
    url = urlsplit(redirect_uri)
    if url.scheme == "https":
        return f"https://{url.netloc}"
    return "http:" if url.netloc.startswith("[") else f"http://{url.netloc}"  # a policy cannot name an IPv6 address


def _url(parameters: Mapping[str, str]) -> str:
    return f"{AUTHORIZE_PATH}?{urlencode(parameters)}"


def _links(*links: str) -> str:
    return f'<p class="links">{" ".join(filter(None, links))}</p>' if any(links) else ""


def _hidden(fields: Mapping[str, str]) -> str:
    return "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items())


def _data(data: Mapping[str, Any]) -> str:
    """The attribute with what a page's script reads."""
    return f' data-page="{escape(to_json(data).decode())}"'
