"""The routes of the pages on which users log in to a site, with the pictures, scripts and redirects of the pages."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Depends
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from wxauth.apps.routes import AppsDep
from wxauth.clients.oauth_errors import OAuthError
from wxauth.clients.oauth_requests import Parameters, form_parameters, parse_parameters
from wxauth.clients.queries import LOGO
from wxauth.errors import NotFound, PayloadTooLarge, RateLimited, StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.random_secrets import new_secret
from wxauth.sites.browser_login_queries import BrowserUser
from wxauth.sites.door import Door
from wxauth.sites.doors.device_codes import DeviceCodes, is_pressed
from wxauth.sites.doors.links import Links
from wxauth.sites.doors.mini_program_logins import FORM_POST_PATH, may_answer
from wxauth.sites.doors.mini_program_urls import MiniProgramUrls
from wxauth.sites.doors.routes import MiniProgramLoginsDep
from wxauth.sites.doors.scan_pictures import ScanPictures
from wxauth.sites.doors.single_sign_on import SingleSignOn
from wxauth.sites.doors.visits import CALLBACK_PATH, Visits, WeChatCallback
from wxauth.sites.oauth_routes import SiteLoginsDep, SiteRequestsDep
from wxauth.sites.pages.pages import CONFIRMED_FIELD, VISIT_PAGES, Pages, PagesDep
from wxauth.sites.pages.rendering import DOOR_PARAMETER, PAGES_FOLDER, SIGN_IN_PARAMETERS
from wxauth.sites.requests import HINT_PARAMETER, HINTS, SiteRequest
from wxauth.sites.responses import AUTHORIZE_PATH, Browser, Onward
from wxauth.sites.secrets import PAGE_ID, QR_CODE_PATH, show_code_field
from wxauth.sites.waiting import ScanPages
from wxauth.web.dependencies import DatabaseDep, SettingsDep, provide
from wxauth.web.direct import Router, text_parameters
from wxauth.web.edge import PROBLEM_KEY

_HTML_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    HTTPStatus.OK: {"description": "A page", "content": {"text/html": {"example": "<!doctype html>…"}}}
}
PAGE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **_HTML_RESPONSE,
    HTTPStatus.SEE_OTHER: {"description": "To the site, or to WeChat"},
    **{
        status: {"description": "A page that says what is wrong", "content": _HTML_RESPONSE[HTTPStatus.OK]["content"]}
        for status in (HTTPStatus.BAD_REQUEST, RateLimited.status, StorageUnavailable.status)
    },
}
ScanPagesDep = Annotated[ScanPages, Depends(provide(ScanPages))]
SingleSignOnDep = Annotated[SingleSignOn, Depends(provide(SingleSignOn))]
LinksDep = Annotated[Links, Depends(provide(Links))]
MiniProgramUrlsDep = Annotated[MiniProgramUrls, Depends(provide(MiniProgramUrls))]
DeviceCodesDep = Annotated[DeviceCodes, Depends(provide(DeviceCodes))]
ScanPicturesDep = Annotated[ScanPictures, Depends(provide(ScanPictures))]
VisitsDep = Annotated[Visits, Depends(provide(Visits))]
_AWAY_PATH: Final = f"{CALLBACK_PATH}/away"  # for a callback from WeChat's page while the database is unavailable
_FILES: Final = StaticFiles(directory=PAGES_FOLDER)
router = Router("websites")


class _CompressedFile(Response):
    """With gzip, a phone on a slow network shows the login page 30 ms sooner."""

    def __init__(self, file: Response) -> None:
        super().__init__(status_code=file.status_code)
        self._file = GZipMiddleware(file)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._file(scope, receive, send)


@dataclass(frozen=True, slots=True)
class LoggingIn:
    """The handling of a site's sign-in request: a FastAPI dependency that consists of other dependencies."""

    settings: SettingsDep
    database: DatabaseDep
    apps: AppsDep
    site_requests: SiteRequestsDep
    site_logins: SiteLoginsDep
    single_sign_on: SingleSignOnDep
    mini_program_urls: MiniProgramUrlsDep
    pages: PagesDep

    async def show(self, encoded_parameters: str) -> Onward | Response:
        """Return the page or redirect that suits the browser. `Pages.answer` handles the failures."""
        pages, browser = self.pages, self.pages.browser
        parameters = parse_parameters(encoded_parameters)
        site_request = await self.site_requests.check(parameters, ip=browser.ip)
        if site_request.is_silent:
            return await self.single_sign_on.answer_silently(site_request, browser)
        hint = {name: parameters[name] for name in HINTS if name in parameters}
        parameters = self.site_requests.for_links(parameters, site_request)
        client = site_request.client
        # For a resource, a phone must scan the QR code, and these browsers are usually on that phone.
        if site_request.resource is not None and (browser.is_web_view or (pages.is_in_wechat and pages.is_on_a_phone)):
            return pages.elsewhere(site_request, parameters)
        if browser.is_web_view and may_answer(client) and parameters.get(DOOR_PARAMETER) != Door.SCAN:
            return pages.web_view(site_request, parameters)
        # The client was read without its logo, which only the pages below show.
        client.logo = await self.database.value(LOGO, name=client.name)
        user = await self.single_sign_on.user_satisfying(site_request, browser)
        identified = replace(browser, cookie=browser.cookie or new_secret())
        if user is not None:
            page = await self._person_page(site_request, identified, user, parameters, hint=hint)
        elif pages.is_in_wechat and client.account_app_id is not None:
            page_id = await self.site_logins.start_account_page(site_request, identified)
            page = pages.account(site_request, page_id, parameters)
        else:
            page = await self._code_page(site_request, identified, parameters)
        if identified.cookie != browser.cookie:
            pages.set_cookie(page, identified.cookie)
        return page

    async def _person_page(
        self,
        site_request: SiteRequest,
        browser: Browser,
        user: BrowserUser,
        parameters: Parameters,
        *,
        hint: Mapping[str, str],
    ) -> Response:
        # Only parameters that wxauth reads are stored, because anybody can add 64 KiB of other parameters to a link.
        # The hint is not stored, because it can contain personal data.
        stored = (
            name for name in (*SIGN_IN_PARAMETERS, DOOR_PARAMETER) if name in parameters and name != HINT_PARAMETER
        )
        query = urlencode({name: parameters[name] for name in stored})
        page_id = await self.site_logins.start_person_page(
            site_request, browser, browser_login_id=user.login_id, query=query
        )
        return self.pages.person(site_request, user, page_id, parameters, hint=hint)

    async def _code_page(self, site_request: SiteRequest, browser: Browser, parameters: Parameters) -> Response:
        client, has_link = site_request.client, False
        if self.pages.is_in_phones_browser and client.link:
            has_link = await self.mini_program_urls.of(client.app_id) is not None
        started = await self.site_logins.start_code_page(site_request, browser, has_link=has_link)
        app = self.apps.find_enabled(client.app_id)
        return self.pages.code(site_request, started, parameters, app=app, has_link=has_link)


LoggingInDep = Annotated[LoggingIn, Depends(LoggingIn)]


@router.get(
    AUTHORIZE_PATH,
    summary=_("Log in to a site (OpenID Connect)"),
    operation_id="authorize",
    responses=PAGE_RESPONSES,
    openapi_extra=text_parameters(*SIGN_IN_PARAMETERS),
)
@router.post(
    AUTHORIZE_PATH,
    summary=_("Log in to a site with a form request (OpenID Connect)"),
    operation_id="authorize_by_form",
    responses=PAGE_RESPONSES,
    failures=[PayloadTooLarge],
    openapi_extra=form_parameters(*SIGN_IN_PARAMETERS, client_id="shop"),
)
async def authorize(request: Request, pages: PagesDep, logging_in: LoggingInDep) -> Response:
    """Show a page with a QR code to scan, which then redirects to `redirect_uri` with `code`, `state` and `iss`.

    The parameters are in the query or, by POST, in a form. Some browsers get another page:

    - In a web-view of the mini-program, the page shows no QR code. It makes the mini-program open `SITE_PAGE`, which
      responds to the request with `POST /v1/me/authorizations`.
    - In WeChat's browser, the page of a site with a service account has only a button to WeChat's page.
    - On a computer, the page of a site with a website app also has a link to WeChat's page, unless the site was added
      with `--near`.
    - In a phone's browser outside WeChat, the page of a site that was added with `--link` also has a link that opens
      the mini-program.
    - In a browser with a login, the page of a site that was added with `--sso` shows the user of this login, and a
      button to continue as this user, unless the request requires a newer login or another user.

    With `resource`, a phone must always confirm. Every page shows the QR code, except in a web-view or in WeChat's
    browser on a phone, where the page shows the address to open on another device.

    With `prompt=none`, no such page is shown, and the site gets a code or an error immediately.

    Only the code flow is supported. PKCE (`S256`) is required. Only a site with `--no-pkce` may omit it, and only if
    the scheme of `redirect_uri` is not an app's.
    """
    encoded_parameters = request.url.query
    if request.method == "POST":
        encoded_parameters = pages.form
        redirect = pages.redirect_to_get(AUTHORIZE_PATH, encoded_parameters)
        if redirect is not None:
            return redirect
    return await pages.answer(logging_in.show(encoded_parameters))


# In the paths of the following routes, `request_id` is the id of a page for a sign-in request. It is not the
# `X-Request-ID` of an HTTP request. The labels of metrics contain the name, so it must not change.


@router.hidden(AUTHORIZE_PATH + "/{request_id}/state")
async def read_state(pages: PagesDep, scan_pages: ScanPagesDep, request_id: str) -> Response:
    """Return the state of a page to the page's browser: `waiting`, `claimed`, `approved`, `denied` or `over`."""
    state = await scan_pages.state(request_id, pages.browser)
    return JSONResponse({"state": state}, headers={"Cache-Control": "no-store"})


@router.hidden(AUTHORIZE_PATH + "/{request_id}/next")
async def redirect_after_decision(pages: PagesDep, scan_pages: ScanPagesDep, request_id: str) -> Response:
    """Redirect the page's browser to the site with an authorization code, or with an error."""
    return await pages.answer(scan_pages.go_on(request_id, pages.browser), gone="gone")


@router.hidden(AUTHORIZE_PATH + "/{request_id}/cancel")
async def go_back_to_site(pages: PagesDep, scan_pages: ScanPagesDep, request_id: str) -> Response:
    """Redirect the page's browser to the site with an error, because the user does not want to log in."""
    return await pages.answer(scan_pages.cancel(request_id, pages.browser))


@router.hidden(FORM_POST_PATH)
async def post_answer(request: Request, pages: PagesDep, mini_program_logins: MiniProgramLoginsDep) -> Response:
    """Return a page that posts the response in its URL, because a mini-program can only open URLs."""
    return await pages.answer(mini_program_logins.unseal(request.query_params.get("answer", "")), gone="gone")


@router.hidden(AUTHORIZE_PATH + "/{request_id}/continue", method="POST")
async def continue_with_login(pages: PagesDep, single_sign_on: SingleSignOnDep, request_id: str) -> Response:
    """Redirect the browser to the site with a code for the user whom the page shows, or to a new page."""
    return await pages.answer(single_sign_on.go_on(request_id, pages.browser, pages.form))


@router.hidden(AUTHORIZE_PATH + "/{request_id}/another", method="POST")
async def use_another_account(pages: PagesDep, single_sign_on: SingleSignOnDep, request_id: str) -> Response:
    """Redirect the browser to a page that shows no user, so that another user can log in with the same request."""
    return await pages.answer(single_sign_on.use_another(request_id, pages.browser, pages.form))


@router.hidden(AUTHORIZE_PATH + "/{request_id}/wechat")
async def go_to_wechat(pages: PagesDep, visits: VisitsDep, request_id: str) -> Response:
    """Redirect the page's browser to WeChat's page, each time with a new `state`."""
    return await pages.answer(visits.begin(request_id, pages.browser))


@router.hidden(CALLBACK_PATH)
async def come_back_from_wechat(
    request: Request, pages: PagesDep, settings: SettingsDep, visits: VisitsDep
) -> Response:
    """Redirect WeChat's callback to a URL that never contains WeChat's `code` or `state`."""
    if request.query_params.keys() <= {"ui_locales"}:
        # The browser follows the redirect below, or a link to this page in another language.
        return pages.message("visit_gone", status=HTTPStatus.NOT_FOUND)
    try:
        parameters = parse_parameters(request.url.query)
        if not pages.browser.cookie or parameters.repeated & {"state", "code"}:
            raise NotFound("no visit of this browser")
        callback = WeChatCallback(pages.browser, parameters.get("state", ""), parameters.get("code", ""))
        onward = await visits.finish(callback)
    except (NotFound, OAuthError):
        onward = Onward(f"{settings.issuer}{CALLBACK_PATH}")
    except StorageUnavailable as exc:
        request.scope[PROBLEM_KEY] = exc
        onward = Onward(f"{settings.issuer}{_AWAY_PATH}")
    return pages.redirect(onward)


@router.hidden(_AWAY_PATH)
async def show_outage(pages: PagesDep) -> Response:
    """Show a page that asks the user to start again in a moment, because the database is unavailable."""
    return pages.message("visit_away", status=StorageUnavailable.status)


@router.hidden(AUTHORIZE_PATH + "/{request_id}/wechat/{name}")
async def show_outcome(pages: PagesDep, request_id: str, name: str) -> Response:
    """Show the outcome `name` of a visit to WeChat's page, without a query to the database."""
    if name not in VISIT_PAGES or not PAGE_ID.fullmatch(request_id):
        raise NotFound("this path doesn't exist")
    return pages.visit(name, page_id=request_id)


@router.hidden(AUTHORIZE_PATH + "/{request_id}/link", method="POST")
async def open_mini_program(pages: PagesDep, links: LinksDep, request_id: str) -> Response:
    """End the page's previous link, and redirect the page's browser to a new link that opens WeChat."""
    return await pages.answer(links.open_mini_program(request_id, pages.browser))


@router.hidden(AUTHORIZE_PATH + "/{request_id}/number", method="POST")
async def type_number(
    pages: PagesDep, links: LinksDep, mini_program_urls: MiniProgramUrlsDep, request_id: str
) -> Response:
    """Redirect the browser to the site, or show the page again, if the typed number is wrong or was not compared."""
    try:
        form = parse_parameters(pages.form)
    except OAuthError:
        form = Parameters([])  # counts like a text that is not a number

    async def compare() -> Onward | Response:
        outcome = await links.go_on(request_id, pages.browser, form.get("number", ""))
        if isinstance(outcome, Onward):
            return outcome
        page = outcome.page
        has_link = page.link and await mini_program_urls.of(page.site_app_id) is not None
        return pages.number(outcome, request_id, has_link=has_link)

    return await pages.answer(compare())


@router.get(
    "/v1/scans/{scene}/code",
    summary=_("Get the image of a QR code"),
    responses={
        HTTPStatus.OK: {
            "description": "PNG or JPEG",
            "content": {"image/png": {"example": "…"}, "image/jpeg": {"example": "…"}},
        }
    },
    failures=[NotFound, StorageUnavailable],
)
async def read_picture(scene: str, scan_pictures: ScanPicturesDep) -> Response:
    """Return WeChat's mini-program code, or an ordinary QR code of a link, as long as the login can be scanned."""
    picture = await scan_pictures.of(scene)
    # The header allows other origins, because sites embed the picture in their pages.
    headers = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(picture.content, headers=headers, media_type=picture.content_type)


@router.hidden("/v1/scans/{scene}/state")
async def read_device_state(scene: str, device_codes: DeviceCodesDep) -> Response:
    """Return the state of a device's login to the page that shows its QR code, as `read_state` does."""
    return JSONResponse({"state": await device_codes.state(scene)}, headers={"Cache-Control": "no-store"})


@router.get(QR_CODE_PATH, summary=_("Show how to scan the QR code or enter the login code"), responses=_HTML_RESPONSE)
async def show_device_page(pages: PagesDep, device_codes: DeviceCodesDep) -> Response:
    """Show a page that explains how to scan the QR code of a device, or to type its login code.

    On a computer, the page has a field for the login code. Without a client that was added with `--user-code`, the
    page does not mention login codes. The request changes nothing.
    """

    async def show() -> Response:
        return pages.device_page(takes_user_codes=await device_codes.takes_user_codes())

    return await pages.answer(show())


@router.hidden(QR_CODE_PATH, method="POST")
async def type_user_code(pages: PagesDep, device_codes: DeviceCodesDep) -> Response:
    """Redirect the browser to the page of the login with the typed code, or explain why there is none."""
    try:
        typed = parse_parameters(pages.form).get("user_code", "")
    except OAuthError:
        typed = ""

    async def find() -> Onward | Response:
        login = await device_codes.type(typed, ip=pages.browser.ip)
        if login is None:
            return pages.device_page(takes_user_codes=await device_codes.takes_user_codes(), is_wrong=True)
        if login.has_page:
            return pages.message("code_of_page")
        scene = device_codes.scene_of(login) if login.user_code else None
        if scene is None:
            return pages.message("code_not_typed", about=pages.client_of(login))
        return Onward(f"{QR_CODE_PATH}/{scene}?ui_locales={pages.language}")

    return await pages.answer(find())


@router.get(QR_CODE_PATH + "/{scene}", summary=_("Show a page for the link of a QR code"), responses=_HTML_RESPONSE)
async def show_link_page(scene: str, pages: PagesDep, settings: SettingsDep, device_codes: DeviceCodesDep) -> Response:
    """Show a page that asks the user to scan the QR code with WeChat. The request changes nothing.

    On a computer, if a device has started the login, the page names the client and the place of its request. After the
    user has pressed the button, the page shows the QR code.

    For the name in `WXAUTH_LINK_CHECK_FILE`, the response is the file with which WeChat checks this prefix.
    """
    name, _colon, content = (settings.link_check_file or "").partition(":")
    if name and scene == name:
        return PlainTextResponse(content, headers={"Cache-Control": "no-store"})
    return await pages.answer(_device_page(scene, pages, device_codes))


@router.hidden(QR_CODE_PATH + "/{scene}", method="POST")
async def show_device_code(scene: str, pages: PagesDep, device_codes: DeviceCodesDep) -> Response:
    """Show the QR code of a device's login, if the form comes from the page that names the client."""
    return await pages.answer(_device_page(scene, pages, device_codes))


async def _device_page(scene: str, pages: Pages, device_codes: DeviceCodes) -> Response:
    # A phone can't scan its own screen, and must not get a picture that its user could open from the album.
    login = None if pages.is_on_a_phone else await device_codes.find(scene)
    if login is None:
        return pages.message("scanned_outside_wechat")
    browser = pages.browser
    try:
        field = parse_parameters(pages.form).get(CONFIRMED_FIELD, "")
    except OAuthError:
        field = ""
    if is_pressed(browser, scene, field):
        return pages.device_code(login, scene, seconds=device_codes.seconds_left(login))
    cookie = browser.cookie or new_secret()
    page = pages.device_login(login, show_code_field(cookie, scene))
    if cookie != browser.cookie:
        pages.set_cookie(page, cookie)
    return page


@router.hidden("/v1/pages/{name}")
async def read_asset(request: Request, name: str) -> Response:
    """Return a file of wxauth's pages: a style sheet, a script or an icon."""
    if not name.endswith((".css", ".js", ".svg")):  # the folder also contains the templates
        raise NotFound("this path doesn't exist")
    response = await _FILES.get_response(name, request.scope)
    response.headers["Cache-Control"] = "no-cache"
    return _CompressedFile(response)
