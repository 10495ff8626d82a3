"""Routes for logins by WeChat's own page: the redirect there, the callback, and the page with the outcome."""

from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import NotFound, RateLimited, StorageUnavailable, Title
from wxauth.server.users.callers import DeviceDep
from wxauth.server.web.cookies import cookie_in
from wxauth.server.web.dependencies import SettingsDep
from wxauth.server.web.direct import Router
from wxauth.server.web.edge import PROBLEM_KEY
from wxauth.server.websites.authorize import AUTHORIZE_PATH
from wxauth.server.websites.browser_answers import (
    HTML,
    NO_PAGE,
    REDIRECT,
    TRY_LATER,
    cookie_name,
    redirect_to,
    text_parameters,
)
from wxauth.server.websites.dependencies import VisitsDep
from wxauth.server.websites.login_cookies import browser_cookies, go_on
from wxauth.server.websites.oauth_errors import OAuthError
from wxauth.server.websites.pages import VISIT_PAGES, failure_page, language_of, message_page, send_to, visit_page
from wxauth.server.websites.requests import parse_parameters
from wxauth.server.websites.secrets import SCENE
from wxauth.server.websites.visits import CALLBACK, WeChatCallback

router = Router("websites")


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
