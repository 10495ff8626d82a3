"""Routes for browsers: the page of `/v1/authorize`, the picture of a scan, scanned links."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from wxauth.errors import NotFound, PayloadTooLarge, RateLimited, StorageUnavailable, Title
from wxauth.problems import Language
from wxauth.server.apps.routes import AppsDep
from wxauth.server.core.settings import Settings
from wxauth.server.sessions.devices import Device
from wxauth.server.users.callers import DeviceDep, TurnsDep
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.server.web.direct import Router
from wxauth.server.web.edge import cacheable_response, cookie_in
from wxauth.server.websites.authorizations import FORM_POST_PATH, may_answer
from wxauth.server.websites.authorize import (
    AUTHORIZE_PATH,
    BrowserCookies,
    Mistake,
    SentBack,
    Unanswerable,
    WayBack,
    check_request,
    cookie_for,
)
from wxauth.server.websites.browser_logins import Continuing
from wxauth.server.websites.doors import Door
from wxauth.server.websites.granting import Onward, cancel, go_on_after_decision, scan_state
from wxauth.server.websites.id_tokens import IdTokenHints
from wxauth.server.websites.links import Links
from wxauth.server.websites.oauth_requests import (
    LONGEST_REDIRECT,
    OAuthError,
    form_parameters,
    parse_parameters,
    text_parameters,
)
from wxauth.server.websites.oauth_routes import SiteRequestsDep
from wxauth.server.websites.pages import (
    ASSETS_PATH,
    DOOR,
    HINT,
    SEE_OTHER,
    account_page,
    code_page,
    failure_page,
    find_asset,
    instructions_page,
    is_in_phones_browser,
    is_in_web_view,
    is_in_wechat,
    language_of,
    message_page,
    person_page,
    send_to,
    unanswerable_page,
    web_view_page,
)
from wxauth.server.websites.scan_routes import AuthorizationsDep
from wxauth.server.websites.scans import ScanPictures

HTML: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A page", "content": {"text/html": {"example": "<!doctype html>…"}}}
}
MISTAKE: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "A page that says what is wrong", "content": HTML[200]["content"]}
}
NO_PAGE: Final[dict[int | str, dict[str, Any]]] = {
    NotFound.status: {"description": "A page that says to begin anew", "content": HTML[200]["content"]}
}
TRY_LATER: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": "A page that says to try again later", "content": HTML[200]["content"]}
    for status in (RateLimited.status, StorageUnavailable.status)
}
REDIRECT: Final[dict[int | str, dict[str, Any]]] = {303: {"description": "To WeChat, or back to the site"}}
FAILURES: Final = (NotFound, OAuthError, Unanswerable, SentBack, RateLimited, StorageUnavailable)
"""What a browser gets a page for, or is sent back with."""
Answer = Onward | WayBack | str | Response
"""Where a browser goes on, or what it is shown."""

_BROWSER: Final = "wxauth-browser"
"""The cookie that identifies a browser."""
_LOGIN: Final = "wxauth-login"
"""The cookie of a browser's login."""
ContinuingDep = Annotated[Continuing, Depends(provide(Continuing))]
LinksDep = Annotated[Links, Depends(provide(Links))]
ScanPicturesDep = Annotated[ScanPictures, Depends(provide(ScanPictures))]
_PARAMETERS: Final = (
    *("client_id", "redirect_uri", "response_type", "scope", "state", "nonce", "code_challenge"),
    *("code_challenge_method", "response_mode", "prompt", "max_age", "id_token_hint", "ui_locales"),
)
router = Router("websites")


def host_cookie(settings: Settings, name: str) -> str:
    """The full name of a cookie.

    With this prefix, browsers accept it only from this host and over https, and no neighbour under the same domain can
    set it (RFC 6265bis, 4.1.3.2).
    """
    return f"__Host-{name}" if is_https(settings) else name


def is_https(settings: Settings) -> bool:
    """Whether browsers reach this service by https."""
    return settings.issuer.startswith("https:")


def _set_cookie(response: Response, settings: Settings, name: str, value: str) -> None:
    """Set a cookie that the browser keeps until it is closed."""
    full_name = host_cookie(settings, name)
    response.set_cookie(full_name, value, path="/", secure=is_https(settings), httponly=True, samesite="lax")


def browser_cookies(request: Request, settings: Settings) -> BrowserCookies:
    """The cookies that a browser sends. A web-view has no login. Raises: InvalidRequest."""
    browser = cookie_in(request, host_cookie(settings, _BROWSER))
    if is_in_web_view(request):
        return BrowserCookies(browser, None, keeps_login=False)
    return BrowserCookies(browser, cookie_in(request, host_cookie(settings, _LOGIN)))


async def answered(
    request: Request, settings: Settings, work: Awaitable[Answer], *, gone: str = "visit_gone"
) -> Response:
    """The answer to a browser: to where it goes on, or a page. `gone` is the one for what there is no more."""
    language = language_of(request)
    try:
        answer = await work
    except FAILURES as exc:
        return page_of_failure(request, exc, language, gone=gone)
    if isinstance(answer, Response):
        return answer
    return send_on(request, answer if isinstance(answer, Onward) else Onward(answer), settings)


def send_on(request: Request, onward: Onward, settings: Settings) -> Response:
    """Send the browser on. If it has a new login, it keeps the value until it is closed."""
    response = send_to(request, onward.to, language_of(request))
    if onward.login is not None:
        _set_cookie(response, settings, _LOGIN, onward.login)
    return response


def page_of_failure(request: Request, failure: Exception, language: Language, *, gone: str = "visit_gone") -> Response:
    """The answer to a browser for one of `FAILURES`."""
    match failure:
        case NotFound():
            return message_page(request, gone, language, status=404)
        case RateLimited() | StorageUnavailable():
            return failure_page(request, failure, language)
        case SentBack():
            return send_to(request, failure.way_back, language)
        case Unanswerable():
            return unanswerable_page(request, failure, language)
        case OAuthError(error="invalid_client"):
            return message_page(request, "mistake", language, detail=Mistake.CLIENT, status=400)
    return message_page(request, "mistake", language, detail=Mistake.REQUEST, status=400)


@dataclass(frozen=True, slots=True)
class LoginPages:
    """Answers a site's request by the page that fits its browser. It is a dependency, made of others."""

    settings: SettingsDep
    database: DatabaseDep
    apps: AppsDep
    hints: Annotated[IdTokenHints, Depends(provide(IdTokenHints))]
    site_requests: SiteRequestsDep
    continuing: ContinuingDep
    links: LinksDep

    async def show(self, request: Request, text: str, *, device: Device) -> Response:
        """The answer to a request with these parameters, still encoded."""
        language, cookies = language_of(request), browser_cookies(request, self.settings)
        cookie = cookie_for(cookies.browser)
        try:
            parameters = parse_parameters(text)
            language = language_of(request, ui_locales=parameters.get("ui_locales"))
            asked = await check_request(self.settings, self.database, self.hints, parameters)
            if asked.is_silent:
                return send_to(request, await self.continuing.answer_silently(asked, cookies, device=device), language)
            if is_in_web_view(request) and may_answer(asked.client) and parameters.get(DOOR) != Door.SCAN:
                return web_view_page(request, asked, parameters, language, page=self.settings.site_page)
            person = await self.continuing.person_for(asked, cookies)
            if person is not None:
                # Without what nobody reads, because anybody may add 64 KiB of it to a link.
                kept = (name for name in (*_PARAMETERS, DOOR) if name in parameters and name != HINT)
                query = urlencode({name: parameters[name] for name in kept})
                page_id = await self.site_requests.start_page_with_button(
                    asked, browser=device, cookie=cookie, browser_login_id=person.login_id, query=query
                )
                page = person_page(request, asked, person, page_id, parameters, language, issuer=self.settings.issuer)
            elif is_in_wechat(request) and asked.client.account_app_id is not None:
                page_id = await self.site_requests.start_page_with_button(asked, browser=device, cookie=cookie)
                page = account_page(request, asked, page_id, parameters, language)
            else:
                app_id, target = asked.client.app_id, None
                if is_in_phones_browser(request):
                    target = await self.links.target(app_id, link=asked.client.link)
                started = await self.site_requests.start_for_page(
                    asked, browser=device, cookie=cookie, has_link=target is not None
                )
                app = self.apps.shown(app_id)
                page = code_page(request, asked, started, parameters, language, app=app, link_target=target)
        except FAILURES as exc:
            return page_of_failure(request, exc, language)
        if cookie != cookies.browser:
            _set_cookie(page, self.settings, _BROWSER, cookie)
        return page


LoginPagesDep = Annotated[LoginPages, Depends(LoginPages)]


@router.get(
    AUTHORIZE_PATH,
    summary=Title("Log in to a site (OpenID Connect)", "登录网站（OpenID Connect）"),
    operation_id="authorize",
    responses={**HTML, **REDIRECT, **MISTAKE, **TRY_LATER},
    openapi_extra=text_parameters(*_PARAMETERS),
)
async def show_code(request: Request, pages: LoginPagesDep, device: DeviceDep) -> Response:
    """Show a page with a code to scan. It then redirects to `redirect_uri` with `code`, `state` and `iss`.

    In a web-view of the mini-program, the page has no code: it makes the mini-program open `SITE_PAGE`, which answers
    the request with `POST /v1/me/authorizations`. In WeChat's browser, the page of a site with a service account has a
    button to WeChat's page. On a computer, the page of a site with a website app has a link to WeChat's page.

    In a browser with a login, the page of a site added with `--sso` has a button to go on as the person it shows.

    Only the code flow is supported, with PKCE (`S256`) for every client.
    """
    return await pages.show(request, request.url.query, device=device)


@router.post(
    AUTHORIZE_PATH,
    summary=Title("Log in to a site by a form (OpenID Connect)", "登录网站（以表单请求）"),
    operation_id="authorize_by_form",
    responses={**HTML, **REDIRECT, **MISTAKE, **TRY_LATER},
    failures=[PayloadTooLarge],
    openapi_extra=form_parameters(client_id="shop"),
)
async def show_code_by_form(request: Request, pages: LoginPagesDep, device: DeviceDep) -> Response:
    """As GET, with the parameters in a form."""
    form = (await request.body()).decode(errors="replace")
    if request.headers.get("sec-fetch-site") == "cross-site" and len(form) <= LONGEST_REDIRECT:
        # The browser sends a cross-site POST without our cookie, and a new cookie would break its other tabs. After a
        # redirect, it sends a GET with the cookie.
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}{AUTHORIZE_PATH}?{form}", SEE_OTHER, headers={"Cache-Control": "no-store"})
    return await pages.show(request, form, device=device)


@router.hidden(AUTHORIZE_PATH + "/{request_id}/state")
async def read_state(request: Request, settings: SettingsDep, database: DatabaseDep, clock: ClockDep) -> Response:
    """Tell the page's own browser its state: `waiting`, `claimed`, `approved`, `denied` or `over`."""
    cookie = browser_cookies(request, settings).browser
    state = await scan_state(database, clock, request.path_params["request_id"], cookie)
    return JSONResponse({"state": state}, headers={"Cache-Control": "no-store"})


@router.hidden(AUTHORIZE_PATH + "/{request_id}/next")
async def redirect_after_decision(
    request: Request, settings: SettingsDep, database: DatabaseDep, clock: ClockDep, device: DeviceDep, turns: TurnsDep
) -> Response:
    """Send the page's own browser back to the site, once the person has decided."""
    request_id, cookies = request.path_params["request_id"], browser_cookies(request, settings)
    going_on = go_on_after_decision(settings, database, clock, turns, request_id, cookies, device=device)
    return await answered(request, settings, going_on, gone="gone")


@router.hidden(AUTHORIZE_PATH + "/{request_id}/cancel")
async def go_back_to_site(request: Request, settings: SettingsDep, database: DatabaseDep, clock: ClockDep) -> Response:
    """Send the page's own browser back to the site, which is told that nobody has logged in."""
    request_id, cookie = request.path_params["request_id"], browser_cookies(request, settings).browser
    return await answered(request, settings, cancel(settings, database, clock, request_id, cookie))


@router.hidden(FORM_POST_PATH)
async def post_answer(request: Request, authorizations: AuthorizationsDep) -> Response:
    """A page that posts the answer in its URL to the site, for a mini-program, which only opens URLs."""
    language = language_of(request)
    try:
        return send_to(request, authorizations.way_back(request.query_params.get("answer", "")), language)
    except NotFound:
        return message_page(request, "gone", language, status=404)


@router.get(
    "/v1/scans/{scene}/code",
    summary=Title("Image of a scan code", "二维码图片"),
    responses={
        200: {"description": "PNG or JPEG", "content": {"image/png": {"example": "…"}, "image/jpeg": {"example": "…"}}},
    },
    failures=[NotFound, StorageUnavailable],
)
async def read_picture(scene: str, scan_pictures: ScanPicturesDep) -> Response:
    """WeChat's mini-program code, or an ordinary QR code of a link, as long as the scan is open."""
    picture = await scan_pictures.of(scene)
    # `cross-origin`, because sites embed the picture in their own pages.
    headers = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(picture.content, headers=headers, media_type=picture.content_type)


@router.get("/d", summary=Title("Instructions for scanning or typing a code", "扫码或输入代码的说明页"), responses=HTML)
async def show_device_page(request: Request) -> Response:
    """A page that explains how to scan or type a code. It changes nothing."""
    return instructions_page(request, "device")


@router.get(
    "/d/{scene}",
    summary=Title("Page for a code scanned outside WeChat", "用其他应用扫码时的提示页"),
    responses=HTML,
)
async def show_link_page(scene: str, request: Request, settings: SettingsDep) -> Response:
    """A page that asks the person to scan the code with WeChat. It changes nothing.

    For the name in `WXAUTH_LINK_CHECK_FILE`, the answer is the file with which WeChat checks this prefix.
    """
    name, _, content = (settings.link_check_file or "").partition(":")
    if name and scene == name:
        return PlainTextResponse(content, headers={"Cache-Control": "no-store"})
    return instructions_page(request, "link")


@router.hidden(ASSETS_PATH + "/{name}")
async def read_asset(request: Request) -> Response:
    """The style sheet and the script of the pages."""
    asset = find_asset(request.path_params["name"])
    if asset is None:
        raise NotFound("there is nothing at this path")
    headers = {"Cache-Control": "no-cache"}
    return cacheable_response(request, asset.content, etag=asset.etag, headers=headers, media_type=asset.media_type)
