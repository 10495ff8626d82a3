"""Routes for the buttons of a page, which lead to the site, to WeChat's page and back, or to the mini-program."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import NotFound, PayloadTooLarge, RateLimited, StorageUnavailable, Title
from wxauth.server.core.settings import Settings
from wxauth.server.users.callers import DeviceDep, TurnsDep
from wxauth.server.web.dependencies import SettingsDep
from wxauth.server.web.direct import Router
from wxauth.server.web.edge import PROBLEM_KEY
from wxauth.server.web.headers import cookie_in
from wxauth.server.websites.authorize import AUTHORIZE_PATH, Mistake, SentBack, Unanswerable
from wxauth.server.websites.browser_answers import (
    HTML,
    MISTAKE,
    NO_PAGE,
    REDIRECT,
    TRY_LATER,
    browser_cookies,
    cookie_name,
    go_on,
    text_parameters,
)
from wxauth.server.websites.browser_logins import BrowserCookies, WayBack
from wxauth.server.websites.dependencies import ContinuingDep, LinksDep, VisitsDep
from wxauth.server.websites.links import TryAgain
from wxauth.server.websites.oauth_requests import OAuthError, Parameters, parse_parameters
from wxauth.server.websites.pages import (
    HINT,
    VISIT_PAGES,
    failure_page,
    language_of,
    message_page,
    number_page,
    redirect_to,
    send_to,
    unanswerable_page,
    visit_page,
)
from wxauth.server.websites.secrets import SCENE, hash_of
from wxauth.server.websites.visits import CALLBACK, WeChatCallback

_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {"type": "object", "properties": {HINT: {"type": "string"}}},
                "example": {HINT: "eyJhbGciOiJSUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6IkpXVCJ9..."},
            }
        }
    }
}

router = Router("websites")


@router.post(
    AUTHORIZE_PATH + "/{request_id}/continue",
    summary=Title("Go on with the login of this browser", "以本浏览器的登录继续"),
    operation_id="continue_with_browser_login",
    responses={**HTML, **REDIRECT, **MISTAKE, **NO_PAGE, **TRY_LATER},
    failures=[PayloadTooLarge],
    openapi_extra=_FORM,
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
    openapi_extra=_FORM,
)
async def use_another_account(
    request: Request, settings: SettingsDep, continuing: ContinuingDep, request_id: str
) -> Response:
    """Redirect the browser to the request's ordinary page, where somebody else can log in."""
    return await _pressed(request, settings, partial(continuing.use_another, request_id))


async def _pressed(
    request: Request, settings: Settings, lead: Callable[[BrowserCookies, dict[str, str]], Awaitable[WayBack | str]]
) -> Response:
    language = language_of(request)
    try:
        form = parse_parameters((await request.body()).decode(errors="replace"))
        hint = {name: form[name] for name in (HINT,) if name in form}
        to = await lead(browser_cookies(request, settings), hint)
    except NotFound:
        return message_page(request, "visit_gone", language, status=404)
    except OAuthError:  # the page's own request, written in full, has too many escapes
        return message_page(request, "mistake", language, detail=Mistake.REQUEST, status=400)
    except Unanswerable as exc:
        return unanswerable_page(request, exc, language)
    except SentBack as exc:
        to = exc.way_back
    except StorageUnavailable as exc:
        return failure_page(request, exc, language)
    return send_to(request, to, language)


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
    cookie = cookie_in(request, cookie_name(settings))
    try:
        to = await visits.after_press(request_id, cookie, device=device)
        return send_to(request, to, language_of(request))
    except NotFound:
        return message_page(request, "visit_gone", language_of(request), status=404)
    except (RateLimited, StorageUnavailable) as exc:
        return failure_page(request, exc, language_of(request))


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
        return go_on(request, await visits.finish(callback, device=device), settings)
    except (NotFound, OAuthError):
        return redirect_to(f"{settings.issuer}{CALLBACK}")
    except StorageUnavailable as exc:
        request.scope[PROBLEM_KEY] = exc
        return redirect_to(f"{settings.issuer}{CALLBACK}/away")


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
    language = language_of(request)
    try:
        return redirect_to(await links.url_after_press(request_id, browser_cookies(request, settings), device=device))
    except NotFound:
        return message_page(request, "visit_gone", language, status=404)
    except (RateLimited, StorageUnavailable) as exc:
        return failure_page(request, exc, language)


@router.post(
    AUTHORIZE_PATH + "/{request_id}/number",
    summary=Title("Type the number that the phone shows", "输入手机上显示的数字"),
    operation_id="type_number",
    responses={**HTML, **REDIRECT, **NO_PAGE, **TRY_LATER},
    failures=[PayloadTooLarge],
    openapi_extra={
        "requestBody": {
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {"type": "object", "properties": {"number": {"type": "string"}}},
                    "example": {"number": "482913"},
                }
            }
        }
    },
)
async def type_number(
    request: Request, settings: SettingsDep, links: LinksDep, device: DeviceDep, turns: TurnsDep, request_id: str
) -> Response:
    """Redirect the browser to the site with a code, if the number is right. The third wrong one ends the request.

    Before an approval, or without six digits, the page is shown again, and nothing is counted.
    """
    language, cookies = language_of(request), browser_cookies(request, settings)
    try:
        form = parse_parameters((await request.body()).decode(errors="replace"))
    except OAuthError:
        form = Parameters([])
    try:
        async with turns.turn(hash_of(request_id)):
            outcome = await links.go_on(request_id, cookies, form.get("number", ""), device=device)
        if isinstance(outcome, TryAgain):
            target = await links.target(outcome.page.site_app_id, link=outcome.page.link)
            return number_page(request, outcome, request_id, language, target=target)
    except NotFound:
        return message_page(request, "visit_gone", language, status=404)
    except (RateLimited, StorageUnavailable) as exc:
        return failure_page(request, exc, language)
    return go_on(request, outcome, settings)
