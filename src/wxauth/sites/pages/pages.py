"""The pages that wxauth shows in browsers during a login or a log-out, from the templates in `page/`."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import quote, urlencode

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from wxauth.clients.models import Client
from wxauth.clients.oauth_errors import OAuthError
from wxauth.clients.oauth_requests import Parameters
from wxauth.clients.redirect_uris import is_local, is_registered, origin_of, origin_shown
from wxauth.core.users import UserFields
from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.i18n import lazy_gettext as _
from wxauth.sessions.devices import describe_device
from wxauth.settings.apps import App
from wxauth.settings.resources import Resource
from wxauth.settings.urls import host_of
from wxauth.sites.asking import StartedScan
from wxauth.sites.door import SCAN_LASTS, Door
from wxauth.sites.doors.links import TryAgain
from wxauth.sites.doors.visits import is_open_on_computers
from wxauth.sites.pages.rendering import (
    ANYWHERE,
    DOOR_PARAMETER,
    LINKED_PARAMETERS,
    LOGIN_COOKIE,
    OWN_FORMS,
    Link,
    Rendering,
    redirect_to,
    site_source,
)
from wxauth.sites.pages.texts import MESSAGES, MISTAKES, STATES, STATES_OF_A_DEVICE, STATES_ON_A_PHONE
from wxauth.sites.queries import SiteLogin
from wxauth.sites.requests import HINT_PARAMETER, SiteRequest
from wxauth.sites.responses import AUTHORIZE_PATH, Mistake, Onward, SentBack, Unanswerable
from wxauth.sites.targets import ResourceAnswer, resource_at
from wxauth.sites.waiting import PressesUsedUp, ScanPageOver
from wxauth.users.callers import DeviceDep
from wxauth.users.schemas import is_uploaded_picture
from wxauth.web.dependencies import SettingsDep
from wxauth.web.edge import PROBLEM_KEY
from wxauth_guard.problems import REQUEST_ID_KEY

VARY_OF_FRONT_PAGE: Final = "Accept, Accept-Language, User-Agent"  # `/` also responds with a problem document
CONFIRMED_FIELD: Final = "confirmed"
STAY_FIELD: Final = "stay"
_REPEATED_AT_LOG_OUT: Final = ("client_id", "post_logout_redirect_uri", "state", "ui_locales")
# The pages are at `/v1/authorize/{request_id}/wechat/{name}`. `MESSAGES` has their texts, such as `visit_again`.
VISIT_PAGES: Final = frozenset({"snapshot", "again", "over", "done"})


@dataclass(frozen=True, slots=True)
class _ShownSite:
    """The site of a sign-in request, as a page names it."""

    title: str | None
    logo: str | None  # a `data:` URL, which a stored request does not contain
    host: str | None  # of the document of an unregistered client
    origin: str | None  # None only for a device without a redirect URI

    @classmethod
    def of(cls, login: SiteRequest | SiteLogin) -> Self:
        """Return the site of a request that has just been checked, or of a stored one."""
        site: SiteLogin | Client
        logo: str | None
        if isinstance(login, SiteLogin):
            site, client_id, logo = login, login.client_id, None
        else:
            site, client_id, logo = login.client, login.client.name, login.client.logo
        # Only an unregistered client has a `client_name`. Its id is the URL of its document, and it chooses its own
        # redirect URIs, so the page shows both the document's host and the requested origin.
        host = None if login.client_name is None else host_of(client_id)
        origin = None if host is not None else origin_shown(site.redirect_uris, login.redirect_uri)
        if origin is None and login.redirect_uri:
            origin = origin_of(login.redirect_uri)
        return cls(site.title, logo, host, origin)


class Pages(Rendering):
    """The responses to a browser's request: pages and redirects."""

    async def answer(self, work: Awaitable[Onward | Response], *, gone: str = "visit_gone") -> Response:
        """Await `work`, and return a redirect or a page for its result or its failure.

        `gone` names the message for NotFound.
        """
        try:
            result = await work
        except ScanPageOver as exc:
            return self.message("visit_over", status=exc.status)
        except NotFound as exc:
            return self.message(gone, status=exc.status)
        except SentBack as exc:
            return self.redirect(exc.onward(self.settings))
        except Unanswerable as exc:
            return self._mistake(exc)
        except OAuthError as exc:
            return self._mistake(Unanswerable(Mistake.REQUEST, parameter=exc.parameter))
        except (RateLimited, StorageUnavailable) as exc:
            self.request.scope[PROBLEM_KEY] = exc  # `web.edge` logs it
            if isinstance(exc, PressesUsedUp):  # no later attempt can succeed, so there is no Retry-After
                return self.message("used_up", status=exc.status)
            page = self.message("limited" if isinstance(exc, RateLimited) else "away", status=exc.status)
            page.headers.update(exc.headers())
            return page
        return self.redirect(result) if isinstance(result, Onward) else result

    def redirect(self, onward: Onward) -> Response:
        """Return a redirect or, if `onward` has a form, a page that posts the form to the site."""
        url, form = onward.url, onward.form
        if form is None:
            response = redirect_to(f"{self.root}{url}" if url.startswith("/") else url)
        else:
            response = self._page(
                "form-post",
                self._say(_("Back to the site")),
                script="post.js",
                form_action=ANYWHERE,
                # With `prompt=none`, a site can send the request from a frame in its page. This page then appears in
                # that frame.
                frame_ancestors=site_source(url),
                origin=origin_of(url),
                url=url,
                form=form,
            )
        if onward.login_cookie is not None:
            self.set_cookie(response, onward.login_cookie, LOGIN_COOKIE)
        return response

    def code(
        self,
        site_request: SiteRequest,
        started: StartedScan,
        parameters: Parameters,
        *,
        app: App | None,
        has_link: bool,
    ) -> Response:
        """Return the page that shows the QR code and the state of the login. `app` is the mini-program that opens."""
        page_id = started.polling_secret
        own_url = self._own_url(page_id)
        states = {**STATES, **STATES_ON_A_PHONE} if self.is_on_a_phone else STATES
        return self._site_page(
            "code",
            site_request,
            page_id,
            parameters,
            script="page.js",
            data={
                "stateUrl": f"{own_url}/state",
                "nextUrl": f"{own_url}/next",
                "texts": {state: self._say(text) for state, text in states.items()},
            },
            form_action=ANYWHERE if has_link else "'none'",  # without a link, the page has no form
            way=self._way_of_code(has_link=has_link),
            is_phone=self.is_on_a_phone,
            has_computer_button=is_open_on_computers(site_request.client),
            started=started,
            seconds=int(SCAN_LASTS.total_seconds()),
            renew_url=_sign_in_path(parameters),
            app=app,
        )

    def _way_of_code(self, *, has_link: bool) -> Literal["scan", "open_wechat", "type_in_wechat", "type"]:
        if not self.is_on_a_phone:
            return "scan"
        if has_link:
            return "open_wechat"
        return "type_in_wechat" if self.is_in_wechat else "type"

    def number(self, again: TryAgain, page_id: str, *, has_link: bool) -> Response:
        """Return the page on which the user types a number again (see `TryAgain`)."""
        return self._site_page(
            "number",
            again.page,
            page_id,
            form_action=ANYWHERE,
            is_wrong=again.is_wrong,
            has_button=has_link,
        )

    def device_page(self, *, takes_user_codes: bool, is_wrong: bool = False) -> Response:
        """Return the page at `/d`, with a field for the login code of a device, if a client accepts such codes."""
        if self.is_on_a_phone or not takes_user_codes:
            return self.message("device_with_user_code" if takes_user_codes else "device")
        return self._page(
            "device",
            self._say(MESSAGES["device"].title),
            form_action=OWN_FORMS,
            is_wrong=is_wrong,
            other_languages=self._in_other_languages("", ""),
        )

    def device_login(self, login: SiteLogin, confirmation: str) -> Response:
        """Return the page that names the client whose device asks for a login. `confirmation` proves that it was seen.

        `browser_ip` and `browser_user_agent` are only what the device says, so the page also shows `requested_ip`.
        """
        browser = [describe_device(login.browser_user_agent), login.browser_ip]
        return self._site_page(
            "device-login",
            login,
            form_action=OWN_FORMS,
            other_languages=self._in_other_languages("", ""),
            client_id=login.client_id,
            requested_ip=login.requested_ip,
            own_ip=self.device.ip,
            browser=" · ".join(filter(None, browser)) if login.browser_ip else None,
            fields={CONFIRMED_FIELD: confirmation},
        )

    def device_code(self, login: SiteLogin, scene: str, *, seconds: int) -> Response:
        """Return the page that shows the QR code of a device's login, and the state of the login."""
        states = {**STATES, **STATES_OF_A_DEVICE}
        return self._site_page(
            "device-code",
            login,
            script="page.js",
            data={
                "stateUrl": f"{self.root}/v1/scans/{scene}/state",
                "texts": {state: self._say(text) for state, text in states.items()},
            },
            other_languages=self._in_other_languages("", ""),
            picture_url=f"{self.root}/v1/scans/{scene}/code",
            seconds=seconds,
        )

    def client_of(self, login: SiteLogin) -> list[str]:
        """Return the line for the site's operator that names the client of a login."""
        return [self._say(_("Site: {site}"), site=login.client_id)]

    def account(self, site_request: SiteRequest, page_id: str, parameters: Parameters) -> Response:
        """Return the page with a single button, which opens WeChat's page."""
        return self._site_page("account", site_request, page_id, parameters)

    def person(
        self,
        site_request: SiteRequest,
        user: UserFields,
        page_id: str,
        parameters: Parameters,
        *,
        hint: Mapping[str, str],
    ) -> Response:
        """Return the page on which the user of the browser's login can continue. Its forms repeat the `hint`."""
        # The page's policy allows no pictures from other hosts, so the page shows only an uploaded picture.
        picture, issuer = user.avatar_url, self.settings.issuer
        return self._site_page(
            "person",
            site_request,
            page_id,
            parameters,
            form_action=ANYWHERE,
            name=(user.nickname or "").strip(),
            picture=f"{self.root}{picture.removeprefix(issuer)}" if is_uploaded_picture(picture, issuer) else None,
            hint_fields=hint,
        )

    def log_out(self, user: UserFields, client: Client | None, parameters: Parameters, confirmation: str) -> Response:
        """Return the page that asks whether to end the browser's login. `confirmation` proves that the user saw it."""
        repeated = {name: parameters[name] for name in _REPEATED_AT_LOG_OUT if name in parameters}
        url = repeated.get("post_logout_redirect_uri")
        ends_at_site = client is not None and url is not None and is_registered(url, client.logout_uris)
        return self._page(
            "log-out",
            self._say(_("Log out?")),
            form_action=ANYWHERE if ends_at_site else OWN_FORMS,
            name=(user.nickname or "").strip() or self._say(_("WeChat user")),
            fields={**repeated, CONFIRMED_FIELD: confirmation},
            stay=STAY_FIELD,
            other_languages=self._in_other_languages("", urlencode(repeated)),
        )

    def visit(self, name: str, *, page_id: str) -> Response:
        """Return the page that a user sees after a visit to WeChat's page. `name` is one of `VISIT_PAGES`."""
        again_url = None if name == "done" else f"{self._own_url(page_id)}/wechat"
        return self.message(f"visit_{name}", again_url=again_url)

    def web_view(self, site_request: SiteRequest, parameters: Parameters) -> Response:
        """Return the page that makes the surrounding mini-program open one of its pages with the site's request."""
        # Encode the query as JavaScript's encodeURIComponent does, because mini-programs decode no other encoding.
        query = urlencode(_site_parameters(parameters), quote_via=quote, safe="!~*'()")
        code_url = f"{self.root}{_sign_in_path({**parameters, DOOR_PARAMETER: Door.SCAN})}"
        data = {"url": f"/{self.settings.site_page}?{query}", "codeUrl": code_url}
        return self._site_page("web-view", site_request, script="web-view.js", data=data, code_url=code_url)

    def elsewhere(self, site_request: SiteRequest, parameters: Parameters) -> Response:
        """Return the page with the address to open on another device, because a phone cannot scan its own screen."""
        site_parameters = _site_parameters(parameters)
        address = f"{self.settings.issuer}{_sign_in_path(site_parameters)}"
        return self._site_page("elsewhere", site_request, parameters=site_parameters, script="copy.js", address=address)

    def message(
        self,
        name: str,
        *,
        status: int = HTTPStatus.OK,
        about: Sequence[str] = (),
        parameter: str | None = None,
        **values: Any,
    ) -> Response:
        """Return a page with the message `name` of `MESSAGES`.

        `about` contains lines for the site's operator, and `parameter` is the name of a wrong parameter.
        """
        # Without its hint, the request might have another result.
        is_repeatable = self.request.method == "GET" and HINT_PARAMETER not in self.request.query_params
        message = MESSAGES[name]
        lines = [] if message.details is None else [self._say(message.details)]
        lines += about
        if parameter is not None:
            lines.append(self._say(_("Parameter: {parameter}"), parameter=parameter))
        return self._page(
            "message",
            self._say(message.title),
            status=status,
            script="back.js",
            lead=None if message.lead is None else self._say(message.lead),
            text=self._say(message.text),
            details=lines,
            request_id=self.request.scope[REQUEST_ID_KEY] if lines or status >= HTTPStatus.BAD_REQUEST else None,
            other_languages=self._in_other_languages("", self.request.url.query) if is_repeatable else [],
            **values,
        )

    def front(self) -> Response:
        """Return the page at `/`, which says only that this is a login service."""
        page = self._page(
            "front",
            self._say(MESSAGES["front"].title),
            text=self._say(MESSAGES["front"].text),
            other_languages=self._in_other_languages("", ""),
        )
        page.headers["Vary"] = VARY_OF_FRONT_PAGE
        return page

    def not_logged_out(self, name: str, site: Client | None, url: str | None) -> Response:
        """Return a page with the message `name`, which says that a request to log out has changed nothing.

        `url` must be registered for the site, because anyone might have created the request.
        """
        way_back = None
        if site is not None and url is not None:
            way_back = Link(url, self._say(_("Back to {title}"), title=site.title or site.name))
        return self.message(name, way_back=way_back)

    def _mistake(self, refusal: Unanswerable) -> Response:
        about = [self._say(MISTAKES[refusal.mistake])]
        way_back: Link | None = None
        if refusal.site is not None:
            title = refusal.site.title or refusal.site.name
            origin = origin_shown(refusal.site.redirect_uris)
            about.append(self._say(_("Site: {site}"), site=title if origin is None else f"{title}, {origin}"))
            # A link to an app or to a loopback address might lead nowhere.
            if origin is not None and origin.startswith("https:"):
                way_back = Link(origin, self._say(_("Back to {title}"), title=title))
        if refusal.received is not None:
            received = refusal.received or "—"  # the dash shows that the redirect URI is missing or empty
            about.append(self._say(_("Received address: {received}"), received=received))
        return self.message(
            "mistake", about=about, parameter=refusal.parameter, way_back=way_back, status=HTTPStatus.BAD_REQUEST
        )

    def _site_page(
        self,
        template: str,
        login: SiteRequest | SiteLogin,
        page_id: str | None = None,
        parameters: Mapping[str, str] | None = None,
        other_languages: Sequence[Link] = (),
        **values: Any,
    ) -> Response:
        site = _ShownSite.of(login)
        own_url: str | None = None
        way_back: Link | None = None
        if page_id is not None:
            own_url = self._own_url(page_id)
            way_back = Link(f"{own_url}/cancel", self._say(_("Back to {title}"), title=site.title))
        resource = resource_at(self.settings, login.resource)
        is_on_computer = is_local(login.redirect_uri)
        if parameters:
            other_languages = self._in_other_languages(f"{self.root}{AUTHORIZE_PATH}", urlencode(parameters))
        return self._page(
            template,
            self._title_of(resource, site.host or site.title, is_on_computer=is_on_computer),
            client_title=site.title,
            logo=site.logo,
            host=site.host,
            origin=site.origin,
            is_on_computer=is_on_computer,
            resource=None if resource is None else ResourceAnswer.of(resource, login.scope, self.language),
            own_url=own_url,
            way_back=way_back,
            other_languages=[*other_languages],
            **values,
        )

    def _title_of(self, resource: Resource | None, site: str | None, *, is_on_computer: bool) -> str:
        if resource is None:
            return self._say(_("Log in to {title}"), title=site)
        if is_on_computer:
            return self._say(_("Allow access for a program on this computer?"))
        return self._say(_("Allow access for {title}?"), title=site)


async def pages_of(request: Request, settings: SettingsDep, device: DeviceDep) -> Pages:
    """Return the pages for the browser that has sent the request. They keep the form of a POST request."""
    # An invalid form must get a page, too, so bytes that are not UTF-8 are replaced instead of refused.
    form = (await request.body()).decode(errors="replace") if request.method == "POST" else ""
    return Pages(request, settings, device, form)


PagesDep = Annotated[Pages, Depends(pages_of)]


def _site_parameters(parameters: Parameters) -> dict[str, str]:
    return {name: parameters[name] for name in parameters if name != DOOR_PARAMETER}


def _sign_in_path(parameters: Mapping[str, str]) -> str:
    return f"{AUTHORIZE_PATH}?{urlencode({name: parameters[name] for name in parameters if name in LINKED_PARAMETERS})}"
