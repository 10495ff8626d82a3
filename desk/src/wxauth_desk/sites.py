"""Two small websites where users log in with one scan: a shop and its admin site.

The websites are complete OpenID Connect clients, built with Authlib. Sites in production differ from these websites in
three ways:

- Each site has its own secret, from `wxauth clients add NAME --sso --redirect-uri https://…/callback`.
- All processes of a site share its sessions.
- An admin site admits only users with a role.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from jinja2 import Template
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from wxauth.clients.clients import ensure_own_client
from wxauth.core.database import Database
from wxauth.settings.apps import picture_url
from wxauth.settings.settings import Settings
from wxauth.sites.pages.rendering import language_of
from wxauth_desk.bounded import BoundedDict
from wxauth_desk.i18n import Text, gettext, languages, lazy_gettext as _, own_name
from wxauth_desk.middleware import LimitedBody
from wxauth_desk.terminal import localized
from wxauth_desk.wechat import ACCOUNT, WEBSITE

_HERE: Final = Path(__file__).parent
_GOODS: Final = (  # a picture (one character), a name, and a price in yuan
    ("茶", _("Longjing tea, 50 g"), 68),
    ("杯", _("Porcelain cup"), 39),
    ("伞", _("Paper umbrella"), 128),
    ("灯", _("Reading lamp"), 199),
)
_FIGURES: Final = (
    (_("Orders"), "128"),
    (_("Revenue"), "¥9,364"),
    (_("Visitors"), "1,702"),
)
_PAGE: Final = Template(_HERE.joinpath("site.html").read_text("utf-8"), autoescape=True, trim_blocks=True)
_MAX_SESSIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class Site:
    """An example website that `wxauth-desk dev` serves."""

    client_id: str  # of a public client, which `add_sites` adds
    title: Text
    path: str  # at the address that both sites share, without a slash at the end
    scopes: tuple[str, ...]
    logo: str | None = None


_LOGO: Final = picture_url(_HERE.joinpath("shop.png").read_bytes())
SHOP: Final = Site(
    client_id="wxauth-example", title=_("Example Shop"), path="", scopes=("openid", "profile", "phone"), logo=_LOGO
)
ADMIN: Final = Site(
    client_id="wxauth-example-admin", title=_("Shop Admin"), path="/admin", scopes=("openid", "profile", "roles")
)


def create_sites(issuer: str, *, url: str, cookie_secret: str, back_end: Sequence[BaseRoute]) -> Starlette:
    """Return both websites at this URL as an ASGI app, with the routes of the shop's back end."""
    shop = _SitePages(SHOP, issuer, url + SHOP.path).app(cookie_secret)
    admin = _SitePages(ADMIN, issuer, url + ADMIN.path).app(cookie_secret)

    async def add_slash(_request: Request) -> Response:
        return RedirectResponse(f"{url}{ADMIN.path}/")

    async def send_file(request: Request) -> Response:
        # The routes below admit only the paths `/site.css` and `/site.js`.
        return FileResponse(_HERE / request.url.path.removeprefix("/"))

    shared_routes = [Route("/site.css", send_file), Route("/site.js", send_file), Route(ADMIN.path, add_slash)]
    # The shop comes last, because its path is empty, and therefore its mount matches every path.
    sites = [Mount(ADMIN.path, admin), Mount(SHOP.path, shop)]
    return Starlette(routes=[*shared_routes, *back_end, *sites], middleware=[Middleware(LimitedBody)])


@dataclass(frozen=True, slots=True)
class _Session:
    claims: dict[str, Any]
    id_token: str = field(repr=False)


class _SitePages:
    """The page of an example website at this URL, and the users' logins and logouts through the issuer."""

    def __init__(self, site: Site, issuer: str, url: str) -> None:
        self._site, self._issuer, self._url = site, issuer, url
        with warnings.catch_warnings(record=True):  # Authlib warns about changes in its next version
            from authlib.integrations.starlette_client import OAuth, OAuthError
            from authlib.oidc.core import CodeIDToken

        self._oauth_error: Any = OAuthError
        self._id_token_claims = CodeIDToken
        self._client = OAuth().register(
            "wxauth",
            client_id=site.client_id,
            server_metadata_url=f"{issuer}/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(site.scopes),
                "code_challenge_method": "S256",
                "token_endpoint_auth_method": "none",
                "trust_env": False,  # so that no proxy gets these requests to this machine
            },
        )
        # The keys are `sid`, the session's id in wxauth and in the cookie.
        self._sessions: BoundedDict[str, _Session] = BoundedDict(_MAX_SESSIONS)

    def app(self, cookie_secret: str) -> Starlette:
        """Return the website as an ASGI app. `cookie_secret` signs its session cookies."""
        site = self._site
        cookie_options: dict[str, Any] = {"session_cookie": site.client_id, "path": site.path or "/", "max_age": None}
        return Starlette(
            routes=[
                Route("/", self._home),
                Route("/login", self._log_in),
                Route("/callback", self._complete_login),
                Route("/logout", self._log_out),
                Route("/state", self._state),
                Route("/backchannel-logout", self._receive_logout, methods=["POST"]),
            ],
            middleware=[Middleware(SessionMiddleware, secret_key=cookie_secret, **cookie_options)],
        )

    async def _home(self, request: Request) -> Response:
        if "lang" in request.query_params:
            request.session["lang"] = request.query_params["lang"]
            return RedirectResponse(f"{self._url}/")
        session = self._sessions.get(request.session.get("sid", ""))
        if session is not None:
            return self._page(request, session.claims)
        # If the session of a cookie is no longer stored, wxauth has most likely reported a logout.
        had_session = request.session.pop("sid", None) is not None
        return self._page(request, logout_was_reported=had_session)

    async def _log_in(self, request: Request) -> Any:
        language = _language(request)
        return await self._client.authorize_redirect(request, f"{self._url}/callback", ui_locales=language)

    async def _complete_login(self, request: Request) -> Response:
        try:
            token = await self._client.authorize_access_token(request)
        except self._oauth_error as exc:
            return self._page(request, error=exc.error)
        # The page shows the claims, and the nonce says nothing about the user.
        claims = {name: value for name, value in token["userinfo"].items() if name != "nonce"}
        request.session["sid"] = claims["sid"]
        self._sessions[claims["sid"]] = _Session(claims, token["id_token"])
        return RedirectResponse(f"{self._url}/")

    async def _log_out(self, request: Request) -> Response:
        session = self._sessions.pop(request.session.pop("sid", ""), None)
        query = {"post_logout_redirect_uri": f"{self._url}/", "ui_locales": _language(request)}
        query |= {"id_token_hint": session.id_token} if session else {"client_id": self._site.client_id}
        return RedirectResponse(f"{self._issuer}/v1/end_session?{urlencode(query)}")

    async def _state(self, request: Request) -> Response:  # requested repeatedly by the page's script
        return JSONResponse(request.session.get("sid") in self._sessions, headers={"Cache-Control": "no-store"})

    async def _receive_logout(self, request: Request) -> Response:  # OpenID Connect Back-Channel Logout 1.0
        form = parse_qs((await request.body()).decode())
        try:
            await self._client.fetch_jwk_set()  # the client keeps the keys in memory after the first time
        except Exception:  # Authlib does not catch the errors of its HTTP client
            # After this status, wxauth sends the logout again.
            return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            claims = await self._claims_of_logout(form["logout_token"][0])
        except Exception:  # the request can contain anything
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        self._sessions.pop(claims["sid"], None)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _claims_of_logout(self, token: str) -> dict[str, Any]:
        claims: dict[str, Any] = await self._client.parse_id_token(
            {"id_token": token},
            nonce=None,
            claims_cls=self._id_token_claims,
            claims_options={
                "iss": {"essential": True, "value": self._issuer},
                "aud": {"essential": True, "value": self._site.client_id},
            },
        )
        if "http://schemas.openid.net/event/backchannel-logout" not in claims["events"] or "nonce" in claims:
            raise ValueError("not a logout token")
        return claims

    def _page(
        self,
        request: Request,
        claims: dict[str, Any] | None = None,
        *,
        error: str | None = None,
        logout_was_reported: bool = False,
    ) -> Response:
        """Return the home page for a user with these claims, or for a visitor."""
        language = _language(request)
        html = _PAGE.render(
            site=self._site,
            other_site=ADMIN if self._site is SHOP else SHOP,
            kind="shop" if self._site is SHOP else "admin",
            language=language,
            other_languages=[(tag, own_name(tag)) for tag in languages() if tag != language],
            _=partial(gettext, language),
            claims=claims,
            shown_claims=to_json(claims, indent=2).decode(),
            goods=_GOODS,
            figures=_FIGURES,
            error=error,
            logout_was_reported=logout_was_reported,
        )
        return HTMLResponse(html, headers={"Cache-Control": "no-store", "Vary": "Accept-Language, Cookie"})


def _language(request: Request) -> str:
    return language_of(request, ui_locales=request.session.get("lang"))


async def add_sites(database: Database, url: str, settings: Settings, *, now: datetime) -> None:
    """Add or update a client for each website. The clients name only apps that `settings` contains."""
    # With the real WeChat, the settings do not contain the apps of the simulated WeChat.
    known_app_ids = {app.app_id for app in settings.apps}
    account_app_id = ACCOUNT["app_id"] if ACCOUNT["app_id"] in known_app_ids else None
    website_app_id = WEBSITE["app_id"] if WEBSITE["app_id"] in known_app_ids else None
    for site in (SHOP, ADMIN):
        loopback_url = f"http://127.0.0.1{site.path}"  # without a port, it stands for all ports (RFC 8252, section 7.3)
        await ensure_own_client(
            database,
            site.client_id,
            title=localized(site.title),
            logo=site.logo,
            redirect_uris=[f"{loopback_url}/callback"],
            logout_uris=[f"{loopback_url}/"],
            backchannel_logout_uri=f"{url}{site.path}/backchannel-logout",
            sso=True,
            link=True,
            account_app_id=account_app_id,
            website_app_id=website_app_id,
            scopes=site.scopes,
            now=now,
        )
