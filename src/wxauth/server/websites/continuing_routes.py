"""Routes for the page of a browser that has a login: to go on as the person it shows, or to use another account."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import NotFound, PayloadTooLarge, StorageUnavailable, Title
from wxauth.server.core.settings import Settings
from wxauth.server.users.callers import DeviceDep
from wxauth.server.web.dependencies import SettingsDep
from wxauth.server.web.direct import Router
from wxauth.server.websites.authorize import AUTHORIZE_PATH, Mistake, SentBack, Unanswerable
from wxauth.server.websites.browser_answers import HTML, MISTAKE, NO_PAGE, REDIRECT, TRY_LATER
from wxauth.server.websites.browser_logins import BrowserCookies, WayBack
from wxauth.server.websites.dependencies import ContinuingDep
from wxauth.server.websites.login_cookies import browser_cookies
from wxauth.server.websites.oauth_errors import OAuthError
from wxauth.server.websites.pages import HINT, failure_page, language_of, message_page, send_to, unanswerable_page
from wxauth.server.websites.requests import parse_parameters

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
