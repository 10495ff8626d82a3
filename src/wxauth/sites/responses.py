"""The responses to a browser that sends a sign-in request: its next URL, or the mistake to show."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

from wxauth.clients.models import Client
from wxauth.clients.redirect_uris import with_query
from wxauth.sessions.devices import Device
from wxauth.settings.settings import Settings
from wxauth.sites.models import RequestFields
from wxauth.sites.secrets import login_cookie_of

AUTHORIZE_PATH: Final = "/v1/authorize"
# Each is an `error_description` for the site's developers.
ANOTHER_USER: Final = "a user other than the one in the hint has logged in"
REFUSED: Final = "the user refused"
MAY_NOT_LOG_IN: Final = "the user can no longer log in"


@dataclass(frozen=True, slots=True)
class Browser(Device):
    """The browser that sent a request. A cookie that it did not send is empty."""

    # The cookie identifies the browser. `LoggingIn.show` fills in the new cookie of a browser without one.
    cookie: str = field(repr=False)
    login_cookie: str = field(repr=False)  # of the browser's login; always empty in a web-view
    is_web_view: bool


def is_web_view(user_agent: str) -> bool:
    """Return whether the browser is a mini-program's web-view, whose User-Agent contains `miniProgram`."""
    return "miniProgram" in user_agent


@dataclass(frozen=True, slots=True)
class Onward:
    """The response that leads a browser to its next URL, by a redirect or by a form that the browser posts."""

    url: str = field(repr=False)  # `Pages.redirect` puts the issuer's path before a URL that is only a path
    form: dict[str, str] | None = field(default=None, repr=False)  # the fields of the form; None for a redirect
    # This is the new cookie of the browser's login. It is None if the cookie does not change.
    login_cookie: str | None = field(default=None, repr=False)

    def with_login_cookie(self, cookie: str, proof_id: UUID | None) -> Self:
        """Return this response with the cookie that is derived from the browser's `cookie` and a proof, if any."""
        if proof_id is None:
            return self
        return replace(self, login_cookie=login_cookie_of(cookie, proof_id))


class SentBack(Exception):
    """The error that sends the browser back to the site (RFC 6749, section 4.1.2.1)."""

    def __init__(self, request: RequestFields, description: str, *, error: str = "access_denied") -> None:
        super().__init__(error, description)
        self._request = request
        self._parameters = {"error": error, "error_description": description}

    def onward(self, settings: Settings) -> Onward:
        return response_to_site(settings, self._request, **self._parameters)


def response_to_site(settings: Settings, request: RequestFields, **parameters: str) -> Onward:
    """Return the response to the site, with these parameters, the site's `state`, and the issuer (RFC 9207)."""
    state = {} if request.state is None else {"state": request.state}
    response = {**parameters, **state, "iss": settings.issuer}
    if request.response_mode == "form_post":
        return Onward(request.redirect_uri, form=response)
    return Onward(with_query(request.redirect_uri, response))


class Mistake(StrEnum):
    """A mistake after which wxauth does not redirect the browser, because it cannot trust the redirect URI."""

    REQUEST = "request"
    CLIENT = "client_id"  # unknown, or may not send this request
    REDIRECT_URI = "redirect_uri"
    DOCUMENT = "client_document"


class Unanswerable(Exception):
    """The error that wxauth explains on a page, because it cannot redirect the browser to the site.

    `received` is the redirect URI of the request, or the host of a client's document, in a form that is safe to show.
    `parameter` is the name of a wrong parameter.
    """

    def __init__(
        self,
        mistake: Mistake,
        *,
        site: Client | None = None,
        received: str | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(mistake)
        self.mistake = mistake
        self.site = site
        self.received = received
        self.parameter = parameter
