"""The routes for logging out (OpenID Connect RP-Initiated Logout 1.0)."""

from dataclasses import dataclass
from hmac import compare_digest
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from wxauth.clients.clients import find_site
from wxauth.clients.id_tokens import IdTokens, InvalidHint
from wxauth.clients.models import Client
from wxauth.clients.oauth_errors import OAuthError
from wxauth.clients.oauth_requests import (
    MAX_POSTED_HINT_LENGTH,
    MAX_TOKEN_LENGTH,
    Parameters,
    Unreadable,
    form_parameters,
    parse_parameters,
    refuse_repeated,
)
from wxauth.clients.redirect_uris import is_registered, loggable_uri, with_query
from wxauth.clients.rules import is_client_name
from wxauth.core.logs import get_logger
from wxauth.errors import PayloadTooLarge
from wxauth.i18n import lazy_gettext as _
from wxauth.sites.authorization_codes import AuthorizationCodes
from wxauth.sites.oauth_routes import END_SESSION_PATH
from wxauth.sites.pages.pages import CONFIRMED_FIELD, STAY_FIELD, PagesDep
from wxauth.sites.pages.rendering import redirect_to
from wxauth.sites.pages.routes import PAGE_RESPONSES, SingleSignOnDep
from wxauth.sites.secrets import log_out_field
from wxauth.sites.tokens import end_web_session
from wxauth.users.callers import ConcurrencyDep
from wxauth.users.user_queries import CURRENT_USER_ID
from wxauth.web.dependencies import ClockDep, DatabaseDep, provide
from wxauth.web.direct import Router, text_parameters

_PARAMETERS: Final = ("id_token_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales", "logout_hint")
router = Router("websites")
log = get_logger()


@dataclass(frozen=True, slots=True)
class LoggingOut:
    """The handling of a request to log out: a FastAPI dependency that consists of other dependencies."""

    request: Request
    pages: PagesDep
    id_tokens: Annotated[IdTokens, Depends(provide(IdTokens))]
    single_sign_on: SingleSignOnDep
    authorization_codes: Annotated[AuthorizationCodes, Depends(provide(AuthorizationCodes))]
    database: DatabaseDep
    clock: ClockDep
    concurrency: ConcurrencyDep

    async def answer(self, encoded_parameters: str) -> Response:
        """End the session of the `id_token_hint`, or ask the user, and return the response."""
        pages = self.pages
        longest_hint = MAX_POSTED_HINT_LENGTH if self.request.method == "POST" else MAX_TOKEN_LENGTH
        parameters = Parameters([])
        try:
            parameters = parse_parameters(encoded_parameters, longest_hint=longest_hint)
            refuse_repeated(parameters)
        except OAuthError as exc:
            others = exc.others if isinstance(exc, Unreadable) else parameters
            return await self._refused(exc.description, others, parameter=exc.parameter)
        if "id_token_hint" not in parameters:
            return await self._answer_without_hint(parameters)
        try:
            hint = await self.id_tokens.read(parameters["id_token_hint"])
        except InvalidHint as exc:
            reason = f"id_token_hint isn't an id_token of a site: {exc.reason}"
            return await self._refused(reason, parameters, client_id=exc.client_id)
        client = await find_site(self.database, hint.client_id)
        if client is None:
            return await self._refused("the client of the id_token_hint was removed", parameters)
        if parameters.get("client_id", client.name) != client.name:
            return await self._refused("client_id isn't the client of the id_token_hint", parameters)
        async with self.concurrency.of_session(hint.session_id, hint.user_id, ends_sessions=True):
            await end_web_session(self.database, self.clock, client.name, hint.session_id)
            # If the login of this browser belongs to the same user, even under a new id after a merge, it ends, too.
            if pages.browser.login_cookie:
                user_id = await self.database.value(CURRENT_USER_ID, user_id=hint.user_id)
                if user_id is not None:
                    await self.authorization_codes.end_browser_login(pages.browser, of=user_id, now=self.clock())
        return self._logged_out(client, parameters)

    async def _answer_without_hint(self, parameters: Parameters) -> Response:
        pages, browser = self.pages, self.pages.browser
        client = await find_site(self.database, parameters.get("client_id", ""))
        user = await self.single_sign_on.user_of(browser)
        if user is None or STAY_FIELD in parameters:
            message = "nobody" if user is None else "stayed"
            return pages.not_logged_out(message, client, self._way_back(client, parameters))
        confirmation = log_out_field(browser.login_cookie)  # no other site can send this value
        is_confirmed = compare_digest(parameters.get(CONFIRMED_FIELD, "").encode(), confirmation.encode())
        if self.request.method != "POST" or not is_confirmed:
            return pages.log_out(user, client, parameters, confirmation)
        # A browser's login has its own queue, as a session has.
        async with self.concurrency.of_session(user.login_id, user.id, ends_sessions=True):
            await self.authorization_codes.end_browser_login(browser, of=user.id, now=self.clock())
        if client is not None and "post_logout_redirect_uri" in parameters:
            return self._logged_out(client, parameters)
        return pages.message("logged_out_of_all")

    def _logged_out(self, client: Client, parameters: Parameters) -> Response:
        if "post_logout_redirect_uri" not in parameters:
            return self.pages.message("logged_out")
        url = self._way_back(client, parameters)
        return self.pages.message("logged_out_nowhere") if url is None else redirect_to(url)

    def _way_back(self, client: Client | None, parameters: Parameters) -> str | None:
        url = parameters.get("post_logout_redirect_uri")
        if url is None:
            return None
        if client is None or not is_registered(url, client.logout_uris):
            change = "the site's own setting, or 'wxauth clients set NAME --logout-uri URI'"
            if client is None:
                change = "the site must send its client_id or the id_token_hint"
            log.warning("logout_uri_not_registered", **_logged(client, parameters), what_to_change=change)
            return None
        return with_query(url, {"state": parameters["state"]}) if "state" in parameters else url

    async def _refused(
        self, reason: str, parameters: Parameters, *, client_id: object = None, parameter: str | None = None
    ) -> Response:
        # Nobody has verified that the site named here has sent the request, so only the log contains its name.
        name = parameters.get("client_id", client_id)
        client = await find_site(self.database, name) if isinstance(name, str) else None
        log.warning("logout_refused", reason=reason, **_logged(client, parameters))
        return self.pages.message("wrong_logout", status=HTTPStatus.BAD_REQUEST, parameter=parameter)


def _logged(client: Client | None, parameters: Parameters) -> dict[str, object]:
    name = parameters.get("client_id", "") if client is None else client.name
    return {
        "client_id": name if is_client_name(name) else None,
        "received": loggable_uri(parameters.get("post_logout_redirect_uri", "")),
        "registered": None if client is None else client.logout_uris,
    }


LoggingOutDep = Annotated[LoggingOut, Depends(LoggingOut)]


@router.get(
    END_SESSION_PATH,
    summary=_("Log out (OpenID Connect RP-Initiated Logout)"),
    operation_id="end_session",
    responses=PAGE_RESPONSES,
    openapi_extra=text_parameters(*_PARAMETERS),
)
@router.post(
    END_SESSION_PATH,
    summary=_("Log out with a form request"),
    operation_id="end_session_by_form",
    responses=PAGE_RESPONSES,
    failures=[PayloadTooLarge],
    openapi_extra=form_parameters(*_PARAMETERS, client_id="shop"),
)
async def end_session(request: Request, pages: PagesDep, logging_out: LoggingOutDep) -> Response:
    """End the session that the `id_token_hint` names, and redirect to `post_logout_redirect_uri`, if it is registered.

    The hint may have expired, or name a previous URL of this service as its issuer. If the same user has a login in
    this browser that sites share, that login and the sessions of these sites end, too.

    A request without a hint ends nothing by itself, because anybody could have made the link. If the browser has a
    login, a page asks the user whether to log out.

    The parameters are in the query. By POST, they can also be in a form, in which the hint may have 16,384 characters.
    """
    encoded_parameters = request.url.query
    if request.method == "POST":
        # A site's form may be sent to a URL that contains some of the parameters.
        encoded_parameters = "&".join(filter(None, (encoded_parameters, pages.form)))
        # A cross-site POST does not contain wxauth's cookies, but the GET after a redirect does.
        redirect = pages.redirect_to_get(END_SESSION_PATH, encoded_parameters)
        if redirect is not None:
            return redirect
    return await pages.answer(logging_out.answer(encoded_parameters))
