"""The pages for browsers: templates, a style sheet and a small script, in `page/`, all served by this service."""

import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

from fastapi import Depends
from jinja2 import Environment, FileSystemLoader
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.i18n import find_language, languages, own_name
from wxauth.problems import REQUEST_ID_KEY, preferred_language
from wxauth.server.clients.clients import is_local, is_registered, origin_of, origin_shown, scheme_of_app
from wxauth.server.clients.models import Client
from wxauth.server.clients.oauth_errors import OAuthError
from wxauth.server.clients.oauth_requests import LONGEST_REDIRECT, Parameters
from wxauth.server.core.apps import App
from wxauth.server.core.resources import host_of
from wxauth.server.core.settings import Settings
from wxauth.server.core.users import UserFields
from wxauth.server.login_pages.texts import TEXTS
from wxauth.server.sessions.devices import Device
from wxauth.server.site_logins.authorize import (
    AUTHORIZE_PATH,
    Browser,
    Onward,
    PressesUsedUp,
    SentBack,
    SiteRequest,
    StartedScan,
    is_web_view,
)
from wxauth.server.site_logins.doors import SCAN_LASTS, Door
from wxauth.server.site_logins.granting import PageState
from wxauth.server.site_logins.links import TryAgain
from wxauth.server.site_logins.queries import Mistake, SiteLogin, Unanswerable
from wxauth.server.site_logins.targets import ResourceAnswer, resource_at
from wxauth.server.site_logins.visits import is_open_on_computers
from wxauth.server.users.callers import DeviceDep
from wxauth.server.users.schemas import is_own_picture
from wxauth.server.web.dependencies import SettingsDep
from wxauth.server.web.edge import PROBLEM_KEY, cookie_in

SEE_OTHER: Final = 303
_PRIVATE: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}

PAGES_FOLDER: Final = Path(__file__).parent / "page"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action {form_action}; frame-ancestors {frame_ancestors}"
)
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
_BROWSER: Final = "wxauth-browser"
"""The cookie that identifies a browser."""
_LOGIN: Final = "wxauth-login"
"""The cookie of a browser's login."""
_UI_LOCALES: Final = re.compile(r"(?:^|&)ui_locales=([^&]*)")
_COOKIE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class _Link(NamedTuple):
    url: str
    text: str
    lang: str | None = None


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(PAGES_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def language_of(request: Request, *, ui_locales: str | None = None) -> str:
    """The language of a page: the one that the site requests, otherwise the one that the browser prefers."""
    requested = filter(None, map(find_language, (ui_locales or "").split()))
    return next(requested, None) or preferred_language(request.headers)


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
    """What the browser of a request gets: a page in its language, or the way on."""

    request: Request
    settings: Settings
    device: Device
    form: str
    """The form that the browser has posted, still encoded; empty without one."""
    language: str = field(init=False)
    """That of the request's `ui_locales`, which are in its query or form, or the one that the browser prefers."""
    root: str = field(init=False)
    """The path under which the service is reached."""
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
        asked = _UI_LOCALES.search(f"{self.request.url.query}&{self.form}")
        self.language = language_of(self.request, ui_locales=asked and unquote_plus(asked[1]))
        self.root = self.request.scope.get("root_path", "").rstrip("/")

    @property
    def browser(self) -> Browser:
        """The browser that sends the request. Raises: InvalidRequest."""
        cookie = cookie_in(self.request, host_cookie(self.settings, _BROWSER)) or ""
        in_web_view = is_web_view(self.request.headers.get("user-agent", ""))
        login = None if in_web_view else cookie_in(self.request, host_cookie(self.settings, _LOGIN))
        known = cookie if _COOKIE.fullmatch(cookie) else ""
        return Browser(self.device.ip, self.device.user_agent, known, login or "", is_web_view=in_web_view)

    async def answer(self, work: Awaitable[Onward | Response], *, gone: str = "visit_gone") -> Response:
        """The answer to a browser: a redirect, or a page. `gone` names the page for what no longer exists.

        The log names a failure after which the page advises to try again.
        """
        try:
            answer = await work
        except NotFound:
            return self.message(gone, status=404)
        except SentBack as exc:
            return self.sent(exc.onward(self.settings))
        except Unanswerable as exc:
            return self._mistake(exc)
        except OAuthError as exc:
            return self._mistake(Unanswerable(Mistake.REQUEST, parameter=getattr(exc, "parameter", None)))
        except (RateLimited, StorageUnavailable) as exc:
            self.request.scope[PROBLEM_KEY] = exc
            if isinstance(exc, PressesUsedUp):
                return self.message("used_up", status=exc.status)
            page = self.message("limited" if isinstance(exc, RateLimited) else "away", status=exc.status)
            page.headers.update(exc.headers())
            return page
        return self.sent(answer) if isinstance(answer, Onward) else answer

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
            response = self._page(
                "form-post",
                self._text("going_back"),
                script="post.js",
                form_action=_redirect_source(url),
                frame_ancestors=_site_source(url),  # a site may ask in a frame of its own, by prompt=none
                origin=origin_of(url),
                url=url,
                form=form,
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
        return RedirectResponse(f"{self.request.scope.get('root_path', '')}{path}?{text}", SEE_OTHER, _PRIVATE)

    def code(
        self,
        asked: SiteRequest,
        started: StartedScan,
        parameters: Parameters,
        *,
        app: App | None,
        link_target: str | None,
    ) -> Response:
        """The page that shows the code and its state.

        With `link_target`, a phone's page has first a button that opens WeChat, and the field for the number. `app` is
        the mini-program that opens; None if it is unknown.
        """
        own_url = self._own_url(started.secret)
        on_a_phone = "_on_a_phone" if self.is_on_a_phone else ""
        names = {state: f"{state}{on_a_phone}" for state in PageState}
        states = {state: self._text(name if name in TEXTS else state) for state, name in names.items()}
        return self._of_site(
            "code",
            asked,
            started.secret,
            parameters,
            script="page.js",
            data={
                "stateUrl": f"{own_url}/state",
                "nextUrl": f"{own_url}/next",
                "texts": states | {"left": TEXTS["left"].translated(self.language)},
            },
            form_action=_form_action_of_link(asked.redirect_uri, link_target) if link_target else "'none'",
            way=("how" if not on_a_phone else "opens" if link_target else "in_wechat" if self.is_in_wechat else "type"),
            is_phone=self.is_on_a_phone,
            by_computer=is_open_on_computers(asked.client),
            started=started,
            seconds=int(SCAN_LASTS.total_seconds()),
            waiting=states[PageState.WAITING],
            renew_url=_url(parameters),
            app=app,
        )

    def number(self, again: TryAgain, page_id: str, *, target: str | None) -> Response:
        """The page after a number that is wrong, or that cannot be right yet: to type it, or to open WeChat again."""
        return self._of_site(
            "number",
            again.page,
            page_id,
            form_action=_form_action_of_link(again.page.redirect_uri, target),
            is_wrong=again.is_wrong,
            has_button=target is not None,
        )

    def account(self, asked: SiteRequest, page_id: str, parameters: Parameters) -> Response:
        """The page with one button, which opens WeChat's page."""
        return self._of_site("account", asked, page_id, parameters)

    def person(self, asked: SiteRequest, person: UserFields, page_id: str, parameters: Parameters) -> Response:
        """The page of a browser with a login: a button to continue to the site as the person it shows."""
        picture, issuer = person.avatar_url, self.settings.issuer
        return self._of_site(
            "person",
            asked,
            page_id,
            parameters,
            form_action=f"'self' {_redirect_source(asked.redirect_uri)}",
            name=(person.nickname or "").strip(),
            picture=f"{self.root}{picture.removeprefix(issuer)}" if is_own_picture(picture, issuer) else None,
            hint={HINT: parameters[HINT]} if HINT in parameters else {},
        )

    def log_out(self, person: UserFields, client: Client | None, parameters: Parameters, field: str) -> Response:
        """The page that asks whether to end the browser's login. `field` proves that the answer is the page's."""
        kept = {each: parameters[each] for each in _KEPT_AT_LOG_OUT if each in parameters}
        url = kept.get("post_logout_redirect_uri")
        leads_back = client is not None and url is not None and is_registered(url, client.logout_uris)
        return self._page(
            "log-out",
            self._text("log_out_title"),
            form_action=f"'self' {_redirect_source(url)}" if leads_back and url is not None else "'self'",
            name=(person.nickname or "").strip() or self._text("no_name"),
            fields={**kept, CONFIRMED: field},
            other_languages=self._in_other_languages("", urlencode(kept)),
        )

    def visit(self, name: str, *, page_id: str) -> Response:
        """The page shown after a visit to WeChat's page, one of `VISIT_PAGES`."""
        return self.message(f"visit_{name}", again_url=VISIT_PAGES[name] and f"{self._own_url(page_id)}/wechat")

    def web_view(self, asked: SiteRequest, parameters: Parameters) -> Response:
        """The page that makes the surrounding mini-program open its own page, with the site's request."""
        # Encoded as encodeURIComponent does, because that is all a mini-program can decode.
        sent = {name: parameters[name] for name in parameters if name != DOOR}
        query = urlencode(sent, quote_via=quote, safe="!~*'()")
        code_url = f"{self.root}{_url({**parameters, DOOR: Door.SCAN})}"
        data = {"url": f"/{self.settings.site_page}?{query}", "codeUrl": code_url}
        return self._of_site("web-view", asked, script="web-view.js", data=data, code_url=code_url)

    def elsewhere(self, asked: SiteRequest, parameters: Parameters) -> Response:
        """The page of a browser whose phone cannot scan it: it shows the address, to be opened elsewhere."""
        sent = {name: parameters[name] for name in parameters if name != DOOR}
        address = f"{self.settings.issuer}{_url(sent)}"
        return self._of_site("elsewhere", asked, parameters=sent, script="copy.js", address=address)

    def message(self, name: str, *, status: int = 200, **more: Any) -> Response:
        """A page with a message, and what its subject is (`about`). What a GET can repeat has its other languages."""
        is_repeatable = self.request.method == "GET" and HINT not in self.request.query_params
        return self._page(
            "message",
            self._text(f"{name}_title"),
            status=status,
            script="back.js",
            name=name,
            request_id=self.request.scope[REQUEST_ID_KEY] if status >= 400 else None,
            other_languages=self._in_other_languages("", self.request.url.query) if is_repeatable else [],
            **more,
        )

    def of_log_out(self, name: str, site: Client | None, url: str | None) -> Response:
        """A page after which the login is as before: a link, because anybody can have made the request, leads back."""
        back = site and self._text("back_to", title=site.title or site.name)
        return self.message(name, way_back=url and back and _Link(url, back))

    def _mistake(self, refusal: Unanswerable) -> Response:
        """The page for a request whose redirect URI cannot be trusted: it names the site, and the URI received."""
        about, way_back = [self._text(refusal.mistake)], None
        if refusal.site is not None:
            title, origin = refusal.site.title or refusal.site.name, origin_shown(refusal.site.redirect_uris)
            about.append(self._text("asking_site", site=title if origin is None else f"{title}, {origin}"))
            if origin is not None and origin.startswith("https:"):
                way_back = _Link(origin, self._text("back_to", title=title))
        if refusal.received is not None:
            about.append(self._text("received", received=refusal.received or "—"))
        if refusal.parameter is not None:
            about.append(self._text("parameter", parameter=refusal.parameter))
        return self.message("mistake", about=about, way_back=way_back, status=400)

    def _of_site(
        self,
        template: str,
        asked: SiteRequest | SiteLogin,
        page_id: str | None = None,
        parameters: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Response:
        """A page on which a person logs in to a site. It names the site, and its origin.

        On a loopback address, where any port is good, the origin has the port that was asked for. With `page_id`, there
        is a way back to the site; with `parameters`, the same page in the other languages.
        """
        site, client_id = (
            (asked, asked.client_id) if isinstance(asked, SiteLogin) else (asked.client, asked.client.name)
        )
        anew, own_url = f"{self.root}{AUTHORIZE_PATH}", page_id and self._own_url(page_id)
        uris, redirect_uri = site.redirect_uris, asked.redirect_uri
        resource = resource_at(self.settings, asked.resource)
        host = None if asked.client_name is None else host_of(client_id)
        is_here = is_local(redirect_uri)
        title = "log_in_to" if resource is None else "allow_local" if is_here else "allow"
        return self._page(
            template,
            self._text(title, title=host or site.title),
            client_title=site.title,
            logo=None if isinstance(asked, SiteLogin) else asked.client.logo,
            host=host,
            is_local=is_here,
            resource=resource and ResourceAnswer.of(resource, asked.scope, self.language),
            origin=origin_of(redirect_uri) if host or is_here or not uris else origin_shown(uris, redirect_uri),
            own_url=own_url,
            way_back=own_url and _Link(f"{own_url}/cancel", self._text("back_to", title=site.title)),
            other_languages=self._in_other_languages(anew, urlencode(parameters)) if parameters else [],
            **more,
        )

    def _page(
        self,
        template: str,
        title: str,
        *,
        status: int = 200,
        form_action: str = "'none'",
        frame_ancestors: str = "'none'",
        data: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Response:
        """A page made of one of the templates. `data` is what its script reads."""
        tag, read = self.language, None if data is None else to_json(data).decode()
        context = {"title": title, "tag": tag, "root": self.root, "text": self._text, "data": read, **more}
        html = _templates().get_template(f"{template}.html").render(context)
        headers = {
            **_PRIVATE,
            "Content-Language": tag,
            "Content-Security-Policy": _POLICY.format(form_action=form_action, frame_ancestors=frame_ancestors),
            "Vary": "Accept-Language, User-Agent, Cookie",
        }
        if frame_ancestors == "'none'":
            headers["X-Frame-Options"] = "DENY"
        return Response(html, status_code=status, headers=headers, media_type="text/html")

    def _text(self, name: str, /, **values: object) -> str:
        """A text with these values in it. Where Chinese has no space, there is none around a name."""
        text = TEXTS[name].translated(self.language).format(**values)
        return _GAP_IN_CHINESE.sub("", text) if values.keys() & {"name", "title"} else text

    def _own_url(self, page_id: str) -> str:
        return f"{self.root}{AUTHORIZE_PATH}/{page_id}"

    def _in_other_languages(self, path: str, query: str) -> list[_Link]:
        """The links to this page in other languages; none whose URL would be too long. No path: the page's own."""
        kept = _UI_LOCALES.sub("", query).lstrip("&")
        url = f"{path}?{kept}{'&' if kept else ''}ui_locales="
        tags = [tag for tag in languages() if tag != self.language and len(url) <= LONGEST_REDIRECT]
        return [_Link(f"{url}{tag}", own_name(tag), tag) for tag in tags]


async def pages_of(request: Request, settings: SettingsDep, device: DeviceDep) -> Pages:
    """The pages of a request. Raises: PayloadTooLarge."""
    form = (await request.body()).decode(errors="replace") if request.method == "POST" else ""
    return Pages(request, settings, device, form)


PagesDep = Annotated[Pages, Depends(pages_of)]


def redirect_to(url: str) -> Response:
    """Redirect the browser to a URL, without a referrer."""
    return Response(status_code=SEE_OTHER, headers={**_PRIVATE, "Location": url})


def _form_action_of_link(redirect_uri: str, target: str | None) -> str:
    return " ".join(filter(None, ("'self'", target, _redirect_source(redirect_uri))))


def _redirect_source(redirect_uri: str) -> str:
    """What `form-action` must allow for a redirect to the site after a form was sent.

    A browser checks all redirects that follow, and the site may redirect on to another of its own hosts; on the
    person's machine, to another port, or to its other name, as Next.js does.
    """
    source = _site_source(redirect_uri)
    if scheme_of_app(redirect_uri):
        return source
    return f"{source} https:" if source.startswith("https:") else f"{source} http://127.0.0.1:* http://localhost:*"


def _site_source(redirect_uri: str) -> str:
    """The site, as a policy names it."""
    if scheme := scheme_of_app(redirect_uri):
        return f"{scheme}:"
    url = urlsplit(redirect_uri)
    # A policy cannot name an IPv6 address.
    return f"{url.scheme}:" if url.netloc.startswith("[") else f"{url.scheme}://{url.netloc}"


def _url(parameters: Mapping[str, str]) -> str:
    return f"{AUTHORIZE_PATH}?{urlencode(parameters)}"
