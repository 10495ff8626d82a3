"""Routes for a phone's browser outside WeChat: the button that opens the mini-program, and the number it shows."""

from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import NotFound, PayloadTooLarge, RateLimited, StorageUnavailable, Title
from wxauth.server.users.callers import DeviceDep, TurnsDep
from wxauth.server.web.dependencies import SettingsDep
from wxauth.server.web.direct import Router
from wxauth.server.websites.authorize import AUTHORIZE_PATH
from wxauth.server.websites.browser_answers import HTML, NO_PAGE, REDIRECT, TRY_LATER, redirect_to
from wxauth.server.websites.dependencies import LinksDep
from wxauth.server.websites.links import TryAgain
from wxauth.server.websites.login_cookies import browser_cookies, go_on
from wxauth.server.websites.oauth_errors import OAuthError
from wxauth.server.websites.pages import failure_page, language_of, message_page, number_page
from wxauth.server.websites.requests import Parameters, parse_parameters
from wxauth.server.websites.secrets import hash_of

router = Router("websites")


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
