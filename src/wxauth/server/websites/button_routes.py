"""Routes for the buttons of a page: to the site, to WeChat's page and back, to the mini-program; and logging out.

Logging out is OpenID Connect RP-Initiated Logout 1.0.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from hmac import compare_digest
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from wxauth.errors import NotFound, PayloadTooLarge, RateLimited, StorageUnavailable, Title
from wxauth.problems import Language
from wxauth.server.clients.clients import is_client_name, is_registered
from wxauth.server.clients.models import Client
from wxauth.server.clients.rows import find_site
from wxauth.server.core.settings import Settings
from wxauth.server.keys.routes import KeyRingDep
from wxauth.server.users.callers import DeviceDep, TurnsDep
from wxauth.server.users.merging_rows import current_user
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep, provide
from wxauth.server.web.direct import Router
from wxauth.server.web.edge import PROBLEM_KEY
from wxauth.server.websites.authorize import (
    AUTHORIZE_PATH,
    BrowserCookies,
)
from wxauth.server.websites.browser_logins import person_in
from wxauth.server.websites.granting import Onward, end_login
from wxauth.server.websites.id_tokens import read_hint
from wxauth.server.websites.links import TryAgain
from wxauth.server.websites.oauth_requests import (
    LONGEST_REDIRECT,
    OAuthError,
    Parameters,
    form_parameters,
    parse_parameters,
    text_parameters,
)
from wxauth.server.websites.page_routes import (
    HTML,
    MISTAKE,
    NO_PAGE,
    REDIRECT,
    TRY_LATER,
    Answer,
    ContinuingDep,
    LinksDep,
    answered,
    browser_cookies,
    send_on,
)
from wxauth.server.websites.pages import (
    CONFIRMED,
    HINT,
    SEE_OTHER,
    VISIT_PAGES,
    failure_page,
    language_of,
    log_out_page,
    message_page,
    number_page,
    redirect_to,
    visit_page,
)
from wxauth.server.websites.secrets import SCENE, log_out_field
from wxauth.server.websites.site_tokens import end_web_session
from wxauth.server.websites.visits import CALLBACK, Visits, WeChatCallback

VisitsDep = Annotated[Visits, Depends(provide(Visits))]
_LOG_OUT_PARAMETERS: Final = (
    "id_token_hint",
    "client_id",
    "post_logout_redirect_uri",
    "state",
    "ui_locales",
    "logout_hint",
)
_LOG_OUT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **HTML,
    303: {"description": "Back to the site"},
    **MISTAKE,
    **TRY_LATER,
}
router = Router("websites")


@router.post(
    AUTHORIZE_PATH + "/{request_id}/continue",
    summary=Title("Go on with the login of this browser", "以本浏览器的登录继续"),
    operation_id="continue_with_browser_login",
    responses={**HTML, **REDIRECT, **MISTAKE, **NO_PAGE, **TRY_LATER},
    failures=[PayloadTooLarge],
    openapi_extra=form_parameters(**{HINT: "eyJhbGciOiJSUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6IkpXVCJ9..."}),
)
async def continue_with_login(
    request: Request, settings: SettingsDep, continuing: ContinuingDep, device: DeviceDep, request_id: str
) -> Response:
    """Redirect the browser to the site with a code for the person whom its page shows.

    If the browser's login is another person's now, or may not be used any more, the request's page is shown anew.
    """
    return await _pressed(request, settings, partial(continuing.go_on, request_id, device=device))


@router.post(
    AUTHORIZE_PATH + "/{request_id}/another",
    summary=Title("Log in with another account", "使用其他账号登录"),
    operation_id="use_another_account",
    responses={**HTML, **REDIRECT, **MISTAKE, **NO_PAGE, **TRY_LATER},
    failures=[PayloadTooLarge],
    openapi_extra=form_parameters(**{HINT: "eyJhbGciOiJSUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6IkpXVCJ9..."}),
)
async def use_another_account(
    request: Request, settings: SettingsDep, continuing: ContinuingDep, request_id: str
) -> Response:
    """Redirect the browser to the request's ordinary page, where somebody else can log in."""
    return await _pressed(request, settings, partial(continuing.use_another, request_id))


async def _pressed(
    request: Request, settings: Settings, lead: Callable[[BrowserCookies, dict[str, str]], Awaitable[Answer]]
) -> Response:
    async def work() -> Answer:
        form = parse_parameters((await request.body()).decode(errors="replace"))
        hint = {name: form[name] for name in (HINT,) if name in form}
        return await lead(browser_cookies(request, settings), hint)

    return await answered(request, settings, work())


@router.get(
    AUTHORIZE_PATH + "/{request_id}/wechat",
    summary=Title("Go to WeChat's page to log in", "前往微信的登录页"),
    responses={**HTML, **REDIRECT, **NO_PAGE, **TRY_LATER},
)
async def go_to_wechat(
    request: Request, settings: SettingsDep, visits: VisitsDep, device: DeviceDep, request_id: str
) -> Response:
    """Redirect the browser that shows this page to WeChat's page, at most ten times, each time with a new `state`.

    In WeChat's browser that is the page of the site's service account; on a computer, that of its website app.
    """
    cookie = browser_cookies(request, settings).browser
    return await answered(request, settings, visits.after_press(request_id, cookie, device=device))


@router.get(
    CALLBACK,
    summary=Title("Come back from WeChat's page", "从微信的登录页返回"),
    responses={**HTML, **REDIRECT, **NO_PAGE},
    openapi_extra=text_parameters("code", "state"),
)
async def come_back_from_wechat(
    request: Request, settings: SettingsDep, visits: VisitsDep, device: DeviceDep
) -> Response:
    """The callback of all apps. The browser is redirected to the site, or to a page with the reason for a failure.

    The next URL never contains WeChat's `code` or `state`. WeChat is asked only if this browser was given the `state`,
    and only once.
    """
    if not request.url.query:
        return message_page(request, "visit_gone", language_of(request), status=404)
    cookies = browser_cookies(request, settings)
    cookie = cookies.browser
    try:
        parameters = parse_parameters(request.url.query)
        if cookie is None or parameters.repeated & {"state", "code"}:
            raise NotFound("no visit of this browser")
        callback = WeChatCallback(cookie, parameters.get("state", ""), parameters.get("code", ""), cookies)
        onward = await visits.finish(callback, device=device)
    except (NotFound, OAuthError):
        onward = Onward(f"{settings.issuer}{CALLBACK}")
    except StorageUnavailable as exc:
        request.scope[PROBLEM_KEY] = exc
        onward = Onward(f"{settings.issuer}{CALLBACK}/away")
    return send_on(request, onward, settings)


@router.hidden(CALLBACK + "/away")
async def show_outage(request: Request) -> Response:
    """A page that asks the person to start again in a moment."""
    return message_page(request, "visit_away", language_of(request), status=StorageUnavailable.status)


@router.hidden(AUTHORIZE_PATH + "/{request_id}/wechat/{name}")
async def show_outcome(request: Request) -> Response:
    """A page with the outcome of a visit to WeChat's page, and a link to try again. It does not query the database."""
    request_id, name = request.path_params["request_id"], request.path_params["name"]
    if name not in VISIT_PAGES or not SCENE.fullmatch(request_id):
        raise NotFound("there is nothing at this path")
    return visit_page(request, name, language_of(request), request_id=request_id)


@router.post(
    AUTHORIZE_PATH + "/{request_id}/link",
    summary=Title("Open the mini-program from a phone's browser", "从手机浏览器打开小程序"),
    operation_id="open_mini_program",
    responses={**HTML, **REDIRECT, **NO_PAGE, **TRY_LATER},
)
async def open_mini_program(
    request: Request, settings: SettingsDep, links: LinksDep, device: DeviceDep, request_id: str
) -> Response:
    """Redirect the browser that shows this page to a link that opens WeChat, at most ten times.

    Each link has a scene of its own for 180 seconds, and ends the one before.
    """
    cookies = browser_cookies(request, settings)
    return await answered(request, settings, links.url_after_press(request_id, cookies, device=device))


@router.post(
    AUTHORIZE_PATH + "/{request_id}/number",
    summary=Title("Type the number that the phone shows", "输入手机上显示的数字"),
    operation_id="type_number",
    responses={**HTML, **REDIRECT, **NO_PAGE, **TRY_LATER},
    failures=[PayloadTooLarge],
    openapi_extra=form_parameters(number="482913"),
)
async def type_number(
    request: Request, settings: SettingsDep, links: LinksDep, device: DeviceDep, request_id: str
) -> Response:
    """Redirect the browser to the site with a code, if the number is right. The third wrong one ends the request.

    Before an approval, or without six digits, the page is shown again, and nothing is counted.
    """
    cookies = browser_cookies(request, settings)
    try:
        form = parse_parameters((await request.body()).decode(errors="replace"))
    except OAuthError:
        form = Parameters([])

    async def compare() -> Answer:
        outcome = await links.go_on(request_id, cookies, form.get("number", ""), device=device)
        if not isinstance(outcome, TryAgain):
            return outcome
        target = await links.target(outcome.page.site_app_id, link=outcome.page.link)
        return number_page(request, outcome, request_id, language_of(request), target=target)

    return await answered(request, settings, compare())


@dataclass(frozen=True, slots=True)
class LoggingOut:
    """Ends what a request to log out names. It is a dependency, made of others."""

    settings: SettingsDep
    keys: KeyRingDep
    database: DatabaseDep
    clock: ClockDep
    turns: TurnsDep

    async def answer(self, request: Request, text: str) -> Response:
        """The answer to a request with these parameters, still encoded."""
        language = language_of(request)
        try:
            parameters = parse_parameters(text)
        except OAuthError:
            return message_page(request, "wrong_logout", language, status=400)
        language = language_of(request, ui_locales=parameters.get("ui_locales"))
        if parameters.repeated:
            return message_page(request, "wrong_logout", language, status=400)
        cookies = browser_cookies(request, self.settings)
        try:
            if "id_token_hint" not in parameters:
                return await self._without_hint(request, parameters, cookies, language)
            hint = await read_hint(self.settings, self.keys, parameters["id_token_hint"])
            client = None if hint is None else await find_site(self.database, hint.client_id)
            if hint is None or client is None or parameters.get("client_id", client.name) != client.name:
                return message_page(request, "wrong_logout", language, status=400)
            async with self.turns.of_session(hint.session_id, hint.user_id, ends_sessions=True):
                await end_web_session(self.database, self.clock, client.name, hint.session_id)
                if cookies.login is not None:
                    await self._end_login(cookies, of=await current_user(self.database, hint.user_id))
        except (RateLimited, StorageUnavailable) as exc:
            return failure_page(request, exc, language)
        return _logged_out(request, client, parameters, language)

    async def _without_hint(
        self, request: Request, parameters: Parameters, cookies: BrowserCookies, language: Language
    ) -> Response:
        """Ask the person of a browser with a login whether to log out. The answer has a field that only we can make."""
        name = parameters.get("client_id", "")
        client = await find_site(self.database, name) if is_client_name(name) else None
        person = await person_in(self.database, self.settings, cookies, now=self.clock())
        if person is None or cookies.login is None:
            return message_page(request, "nobody", language)
        field = log_out_field(cookies.login)
        if request.method != "POST" or not compare_digest(parameters.get(CONFIRMED, "").encode(), field.encode()):
            return log_out_page(request, person, client, parameters, field, language)
        async with self.turns.of_session(person.login_id, person.id, ends_sessions=True):
            await self._end_login(cookies, of=person.id)
        if client is not None and "post_logout_redirect_uri" in parameters:
            return _logged_out(request, client, parameters, language)
        return message_page(request, "logged_out_of_all", language)

    async def _end_login(self, cookies: BrowserCookies, *, of: UUID | None) -> None:
        """End the login of this browser, if it is that of this person, whatever their id is now."""
        if of is not None:
            await end_login(self.database, self.settings, cookies, of=of, now=self.clock())


LoggingOutDep = Annotated[LoggingOut, Depends(LoggingOut)]


@router.get(
    "/v1/end_session",
    summary=Title("Log out (OpenID Connect RP-Initiated Logout)", "退出登录（OpenID Connect RP-Initiated Logout）"),
    responses=_LOG_OUT_RESPONSES,
    openapi_extra=text_parameters(*_LOG_OUT_PARAMETERS),
)
async def end_session(request: Request, logging_out: LoggingOutDep) -> Response:
    """End the session that the `id_token_hint` names, even if it has expired, and go to `post_logout_redirect_uri`.

    If this browser has a login of the same person, which sites share, it ends, too, with its sites' sessions. Without a
    hint, nothing ends by the request itself, because anybody could have made the link: in a browser with a login, a
    page asks whether to log out.
    """
    return await logging_out.answer(request, request.url.query)


@router.post(
    "/v1/end_session",
    summary=Title("Log out by a form", "退出登录（以表单请求）"),
    operation_id="end_session_by_form",
    responses=_LOG_OUT_RESPONSES,
    failures=[PayloadTooLarge],
    openapi_extra=form_parameters(*_LOG_OUT_PARAMETERS, client_id="shop"),
)
async def end_session_by_form(request: Request, logging_out: LoggingOutDep) -> Response:
    """As GET, with the parameters in a form."""
    form = (await request.body()).decode(errors="replace")
    text = "&".join(part for part in (request.url.query, form) if part)
    if request.headers.get("sec-fetch-site") == "cross-site" and len(text) <= LONGEST_REDIRECT:
        # The browser sends a cross-site POST without our cookies. After a redirect, it sends a GET with them.
        root = request.scope.get("root_path", "")
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return RedirectResponse(f"{root}/v1/end_session?{text}", SEE_OTHER, headers=headers)
    return await logging_out.answer(request, text)


def _logged_out(request: Request, client: Client, parameters: Parameters, language: Language) -> Response:
    """Go back to the site, if it was registered with this address."""
    url = parameters.get("post_logout_redirect_uri")
    if url is None:
        return message_page(request, "logged_out", language)
    if not is_registered(url, client.logout_uris):
        return message_page(request, "logged_out_nowhere", language)
    if "state" in parameters:
        url = f"{url}{'&' if '?' in url else '?'}{urlencode({'state': parameters['state']})}"
    return redirect_to(url)
