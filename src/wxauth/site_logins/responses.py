"""The responses to a browser that sends a sign-in request.

wxauth leads the browser to the next URL, by a redirect or a form, or shows a page that names the mistake.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

from wxauth.clients.models import Client
from wxauth.clients.redirect_uris import with_query
from wxauth.sessions.devices import Device
from wxauth.settings.settings import Settings
from wxauth.site_logins.models import RequestFields
from wxauth.site_logins.secrets import login_cookie_of

AUTHORIZE_PATH: Final = "/v1/authorize"
ANOTHER_USER: Final = "a user other than the one in the hint has logged in"
"""The error description for a site whose `id_token_hint` named another user."""
REFUSED: Final = "the user refused"
"""The error description after a refusal by the user."""
MAY_NOT_LOG_IN: Final = "the user can no longer log in"
"""The error description if the approval is no longer valid, for example because the user has been banned."""


@dataclass(frozen=True, slots=True)
class Browser(Device):
    """The browser that sent a request. If the browser did not send a cookie, the cookie's field is empty."""

    cookie: str = field(repr=False)
    """The value of the cookie that identifies the browser.

    If a browser sends a sign-in request without this cookie, `LoggingIn.show` fills in the value of its new cookie.
    """
    login_cookie: str = field(repr=False)
    """The value of the cookie of the browser's login. For a mini-program's web-view, it is always empty."""
    is_web_view: bool
    """Whether the browser is a mini-program's web-view."""


def is_web_view(user_agent: str) -> bool:
    """Return whether the browser is a mini-program's web-view, whose User-Agent contains `miniProgram`."""
    return "miniProgram" in user_agent


@dataclass(frozen=True, slots=True)
class Onward:
    """The response that leads a browser to its next URL, by a redirect or by a form that the browser posts."""

    url: str = field(repr=False)
    """The URL of the redirect, or the URL that the browser posts the form to.

    `login_pages` puts the issuer's path before a URL that is only a path.
    """
    form: dict[str, str] | None = field(default=None, repr=False)
    """The fields of the form; None for a redirect."""
    login_cookie: str | None = field(default=None, repr=False)
    """The new value for the cookie of the browser's login; None if the cookie does not change."""

    def with_login_cookie(self, cookie: str, proof_id: UUID | None) -> Self:
        """Return this response with the new value of the cookie of the browser's login.

        The value is derived from the browser's `cookie` and a proof. Without a proof, return the response unchanged.
        """
        if proof_id is None:
            return self
        return replace(self, login_cookie=login_cookie_of(cookie, proof_id))


class SentBack(Exception):
    """The error that sends the browser back to the site.

    `error` and `description` are the parameters `error` and `error_description` of the response (RFC 6749, section
    4.1.2.1). The default `error` says that the user or wxauth has refused.
    """

    def __init__(self, request: RequestFields, description: str, *, error: str = "access_denied") -> None:
        super().__init__(error, description)
        self._request = request
        self._parameters = {"error": error, "error_description": description}

    def onward(self, settings: Settings) -> Onward:
        """Return the response that reports this error to the site."""
        return response_to_site(settings, self._request, **self._parameters)


def response_to_site(settings: Settings, request: RequestFields, **parameters: str) -> Onward:
    """Return the response to the site, with these parameters, the site's `state`, and the issuer (RFC 9207).

    It is a redirect or, if the site has chosen the response mode `form_post`, a form.
    """
    state = {} if request.state is None else {"state": request.state}
    response = {**parameters, **state, "iss": settings.issuer}
    if request.response_mode == "form_post":
        return Onward(request.redirect_uri, form=response)
    return Onward(with_query(request.redirect_uri, response))


class Mistake(StrEnum):
    """A mistake after which wxauth does not redirect the browser, because it cannot trust the redirect URI."""

    REQUEST = "request"
    """The request is malformed."""
    CLIENT = "client_id"
    """The client is unknown, or may not send this request."""
    REDIRECT_URI = "redirect_uri"
    """The client has not registered the redirect URI."""
    DOCUMENT = "client_document"
    """The client's metadata document cannot be used."""


class Unanswerable(Exception):
    """The error that wxauth explains on a page, because it cannot redirect the browser to the site.

    `site` is the client that has not registered the redirect URI, so that the page can name the client.
    `received` is the redirect URI of the request, or the host of a client's document, in a form that is safe to show.
    `parameter` is the name of the malformed parameter, if it is known.
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
