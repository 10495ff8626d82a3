"""Logging out of a site and of the browser's login (OpenID Connect RP-Initiated Logout 1.0)."""

from hmac import compare_digest
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from wxauth.errors import PayloadTooLarge, RateLimited, StorageUnavailable, Title
from wxauth.problems import Language
from wxauth.server.clients.clients import is_client_name, is_registered
from wxauth.server.clients.models import Client
from wxauth.server.clients.rows import find_site
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.settings import Settings
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.keys.routes import KeyRingDep
from wxauth.server.limits.turns import Turns
from wxauth.server.users.callers import TurnsDep
from wxauth.server.users.merging_rows import current_user
from wxauth.server.web.dependencies import ClockDep, DatabaseDep, SettingsDep
from wxauth.server.web.direct import Router
from wxauth.server.websites.browser_answers import HTML, MISTAKE, TRY_LATER, browser_cookies, text_parameters
from wxauth.server.websites.browser_logins import BrowserCookies, end_login, person_in
from wxauth.server.websites.id_tokens import IdTokenHint, read_hint
from wxauth.server.websites.oauth_requests import LONGEST_REDIRECT, OAuthError, Parameters, parse_parameters
from wxauth.server.websites.pages import (
    CONFIRMED,
    SEE_OTHER,
    failure_page,
    language_of,
    log_out_page,
    message_page,
    redirect_to,
)
from wxauth.server.websites.secrets import log_out_field
from wxauth.server.websites.site_tokens import end_web_session

_PARAMETERS: Final = (
    *("id_token_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales"),
    "logout_hint",
)
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **HTML,
    303: {"description": "Back to the site"},
    **MISTAKE,
    **TRY_LATER,
}

router = Router("websites")


@router.get(
    "/v1/end_session",
    summary=Title("Log out (OpenID Connect RP-Initiated Logout)", "退出登录（OpenID Connect RP-Initiated Logout）"),
    responses=_RESPONSES,
    openapi_extra=text_parameters(*_PARAMETERS),
)
async def end_session(
    request: Request,
    settings: SettingsDep,
    keys: KeyRingDep,
    database: DatabaseDep,
    clock: ClockDep,
    turns: TurnsDep,
) -> Response:
    """End the session that the `id_token_hint` names, even if it has expired, and go to `post_logout_redirect_uri`.

    If this browser has a login of the same person, which sites share, it ends, too, with its sites' sessions. Without a
    hint, nothing ends by the request itself, because anybody could have made the link: in a browser with a login, a
    page asks whether to log out.
    """
    return await _log_out(request, settings, keys, database, clock, turns, request.url.query)


@router.post(
    "/v1/end_session",
    summary=Title("Log out by a form", "退出登录（以表单请求）"),
    operation_id="end_session_by_form",
    responses=_RESPONSES,
    failures=[PayloadTooLarge],
    openapi_extra={
        "requestBody": {
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {"type": "object", "properties": {name: {"type": "string"} for name in _PARAMETERS}},
                    "example": {"client_id": "shop"},
                }
            }
        }
    },
)
async def end_session_by_form(
    request: Request,
    settings: SettingsDep,
    keys: KeyRingDep,
    database: DatabaseDep,
    clock: ClockDep,
    turns: TurnsDep,
) -> Response:
    """As GET, with the parameters in a form."""
    form = (await request.body()).decode(errors="replace")
    text = "&".join(part for part in (request.url.query, form) if part)
    if request.headers.get("sec-fetch-site") == "cross-site" and len(text) <= LONGEST_REDIRECT:
        # The browser sends a cross-site POST without our cookies. After a redirect, it sends a GET with them.
        root = request.scope.get("root_path", "")
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return RedirectResponse(f"{root}/v1/end_session?{text}", SEE_OTHER, headers=headers)
    return await _log_out(request, settings, keys, database, clock, turns, text)


async def _log_out(
    request: Request,
    settings: Settings,
    keys: KeyRing,
    database: Database,
    clock: Clock,
    turns: Turns,
    text: str,
) -> Response:
    language = language_of(request)
    try:
        parameters = parse_parameters(text)
    except OAuthError:
        return message_page(request, "wrong_logout", language, status=400)
    language = language_of(request, ui_locales=parameters.get("ui_locales"))
    if parameters.repeated:
        return message_page(request, "wrong_logout", language, status=400)
    cookies = browser_cookies(request, settings)
    try:
        if "id_token_hint" not in parameters:
            return await _without_hint(request, settings, database, clock, turns, parameters, cookies, language)
        hint = await read_hint(settings, keys, parameters["id_token_hint"])
        client = None if hint is None else await find_site(database, hint.client_id)
        if hint is None or client is None or parameters.get("client_id", client.name) != client.name:
            return message_page(request, "wrong_logout", language, status=400)
        async with turns.of_session(hint.session_id, hint.user_id, ends_sessions=True):
            await end_web_session(database, clock, client.name, hint.session_id)
            await _end_login_of(hint, settings, database, clock, cookies)
    except (RateLimited, StorageUnavailable) as exc:
        return failure_page(request, exc, language)
    return _logged_out(request, client, parameters, language)


async def _end_login_of(
    hint: IdTokenHint, settings: Settings, database: Database, clock: Clock, cookies: BrowserCookies
) -> None:
    """End the login of this browser, if it is that of the hint's person, whatever their id is now."""
    if cookies.login is None:
        return
    user_id: UUID | None = await current_user(database, hint.user_id)
    if user_id is not None:
        await end_login(database, settings, cookies, user_id, now=clock())


async def _without_hint(
    request: Request,
    settings: Settings,
    database: Database,
    clock: Clock,
    turns: Turns,
    parameters: Parameters,
    cookies: BrowserCookies,
    language: Language,
) -> Response:
    """Ask the person of a browser with a login whether to log out. The answer carries a field that only we can make."""
    name = parameters.get("client_id", "")
    client = await find_site(database, name) if is_client_name(name) else None
    person = await person_in(database, settings, cookies, now=clock())
    if person is None or cookies.login is None:
        return message_page(request, "nobody", language)
    field = log_out_field(cookies.login)
    if request.method != "POST" or not compare_digest(parameters.get(CONFIRMED, "").encode(), field.encode()):
        return log_out_page(request, person, client, parameters, field, language)
    async with turns.of_session(person.login_id, person.id, ends_sessions=True):
        await end_login(database, settings, cookies, person.id, now=clock())
    if client is not None and "post_logout_redirect_uri" in parameters:
        return _logged_out(request, client, parameters, language)
    return message_page(request, "logged_out_of_all", language)


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
