"""Two small websites with a shared login by scan (a shop and its admin site), and the shop's back end.

The websites are complete, with Authlib's client. Sites in production differ in three ways. Each site has its own
secret, from `wxauth clients add NAME --sso --redirect-uri https://…/callback`. All processes of a site share its
sessions. An admin site admits only users with a role.
"""

import asyncio
import warnings
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from runpy import run_path
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, urlencode

from fastapi import Depends, FastAPI
from jinja2 import Template
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from wxauth.clients.clients import Credentials, add_client, ensure_own_client, renew_secret
from wxauth.clients.models import Scope
from wxauth.clients.rules import build_client
from wxauth.core.database import Database
from wxauth.errors import NameTaken
from wxauth.login_pages.rendering import language_of
from wxauth.settings.logos import picture_url
from wxauth.settings.settings import Settings
from wxauth_desk.i18n import Text, gettext, languages, lazy_gettext as _, own_name
from wxauth_desk.terminal import localized
from wxauth_desk.wechat import ACCOUNT, APP_KEYS, APPS, WEBSITE
from wxauth_guard import BearerGuard, Principal

_HERE: Final = Path(__file__).parent
_GOODS: Final = (
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
_MOST_SESSIONS: Final = 1000
PUSH_PATH: Final = "/wechat"
"""The path that receives forwarded messages."""
_NAME: Final = "dev-shop"
_IN_WHEEL: Final = Path(__file__).parent / "_shared" / "shop.py"
_IN_CHECKOUT: Final = Path(__file__).parents[3] / "examples" / "sibling" / "shop.py"
_PIECES: Final = 10
_PIECE_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Site:
    """One of the two websites."""

    name: str
    """The client_id of the site. `wxauth-desk dev` adds it as a public client."""
    title: Text
    path: str
    """The path of the site at the address that both sites share, without a slash at the end."""
    scopes: tuple[str, ...]
    logo: str | None = None


_LOGO: Final = picture_url(_HERE.joinpath("shop.png").read_bytes())
SHOP: Final = Site("wxauth-example", _("Example Shop"), "", ("openid", "profile", "phone"), _LOGO)
ADMIN: Final = Site("wxauth-example-admin", _("Shop Admin"), "/admin", ("openid", "profile", "roles"))
SITES: Final = (SHOP, ADMIN)


def create_site(issuer: str, *, url: str, cookie_secret: str, back_end: Sequence[BaseRoute]) -> Starlette:
    """Return both websites as an ASGI app, for this URL, with the shop's back end.

    Raises: ModuleNotFoundError (Authlib).
    """
    shop, admin = (Website(each, issuer, url + each.path).app(cookie_secret) for each in SITES)

    async def with_slash(_: Request) -> Response:
        return RedirectResponse(f"{url}{ADMIN.path}/")

    async def file(request: Request) -> Response:
        return FileResponse(_HERE / request.url.path.removeprefix("/"))

    own = [Route("/site.css", file), Route("/site.js", file), Route(ADMIN.path, with_slash)]
    sites = [Mount(ADMIN.path, admin), Mount(SHOP.path, shop)]
    return Starlette(routes=[*own, *back_end, *sites])


class Website:
    """One of the two websites, at this URL. Its users log in at the issuer. Raises: ModuleNotFoundError (Authlib)."""

    def __init__(self, site: Site, issuer: str, url: str) -> None:
        self._site, self._issuer, self._url = site, issuer, url
        with warnings.catch_warnings(record=True):  # Authlib warns about changes in its next version
            from authlib.integrations.starlette_client import OAuth, OAuthError
            from authlib.oidc.core import CodeIDToken

        self._failure: Any = OAuthError
        self._checked_claims = CodeIDToken
        self._client = OAuth().register(
            "wxauth",
            client_id=site.name,
            server_metadata_url=f"{issuer}/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(site.scopes),
                "code_challenge_method": "S256",
                "token_endpoint_auth_method": "none",
                "trust_env": False,
            },
        )
        self._sessions: dict[str, dict[str, Any]] = {}
        """The claims and the id_token of each open session, by `sid`, the session's id in wxauth and in the cookie."""

    def app(self, cookie_secret: str) -> Starlette:
        """Return the website as an ASGI app, with a secret for the cookies of its sessions."""
        site = self._site
        cookies: dict[str, Any] = {"session_cookie": site.name, "path": site.path or "/", "max_age": None}
        return Starlette(
            routes=[
                Route("/", self._home),
                Route("/login", self._log_in),
                Route("/callback", self._come_back),
                Route("/logout", self._log_out),
                Route("/state", self._state),
                Route("/backchannel-logout", self._hear_of_logout, methods=["POST"]),
            ],
            middleware=[Middleware(SessionMiddleware, secret_key=cookie_secret, **cookies)],
        )

    async def _home(self, request: Request) -> Response:
        if "lang" in request.query_params:
            request.session["lang"] = request.query_params["lang"]
            return RedirectResponse(f"{self._url}/")
        sid = request.session.get("sid")
        if sid in self._sessions:
            return self._page(request, self._sessions[sid]["claims"])
        return self._page(request, None, was_told=request.session.pop("sid", None) is not None)

    async def _log_in(self, request: Request) -> Any:
        tag = _language(request)
        return await self._client.authorize_redirect(request, f"{self._url}/callback", ui_locales=tag)

    async def _come_back(self, request: Request) -> Response:
        try:
            token = await self._client.authorize_access_token(request)
        except self._failure as exc:
            return self._page(request, None, error=exc.error)
        claims = {name: value for name, value in token["userinfo"].items() if name != "nonce"}
        request.session["sid"] = claims["sid"]
        self._sessions[claims["sid"]] = {"claims": claims, "id_token": token["id_token"]}
        if len(self._sessions) > _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return RedirectResponse(f"{self._url}/")

    async def _log_out(self, request: Request) -> Response:
        session = self._sessions.pop(request.session.pop("sid", ""), None)
        asked = {"post_logout_redirect_uri": f"{self._url}/", "ui_locales": _language(request)}
        asked |= {"id_token_hint": session["id_token"]} if session else {"client_id": self._site.name}
        return RedirectResponse(f"{self._issuer}/v1/end_session?{urlencode(asked)}")

    async def _state(self, request: Request) -> Response:
        return JSONResponse(request.session.get("sid") in self._sessions, headers={"Cache-Control": "no-store"})

    async def _hear_of_logout(self, request: Request) -> Response:
        """Receive a logout token (Back-Channel Logout 1.0)."""
        form = parse_qs((await request.body()).decode())
        try:
            await self._client.fetch_jwk_set()  # kept in memory after the first time
        except Exception:  # Authlib lets through whatever its HTTP client raises
            return Response(status_code=503)  # after this status, wxauth sends the logout again
        try:
            told = await self._claims_of_logout(form["logout_token"][0])
        except Exception:  # the request can contain anything
            return Response(status_code=400)
        self._sessions.pop(told["sid"], None)
        return Response(status_code=204)

    async def _claims_of_logout(self, token: str) -> dict[str, Any]:
        """Return the claims of a logout token, after the checks of an id_token. Raises: any exception."""
        told: dict[str, Any] = await self._client.parse_id_token(
            {"id_token": token},
            nonce=None,
            claims_cls=self._checked_claims,
            claims_options={
                "iss": {"essential": True, "value": self._issuer},
                "aud": {"essential": True, "value": self._site.name},
            },
        )
        if "http://schemas.openid.net/event/backchannel-logout" not in told["events"] or "nonce" in told:
            raise ValueError("not a logout token")
        return told

    def _page(self, request: Request, claims: dict[str, Any] | None, **notice: Any) -> Response:
        """Return the home page.

        `claims` are the claims of the id_token, and `notice` is an `error`, or says that the site `was_told` of a
        logout.
        """
        language = _language(request)
        html = _PAGE.render(
            site=self._site,
            other=ADMIN if self._site is SHOP else SHOP,
            kind="shop" if self._site is SHOP else "admin",
            language=language,
            others=[(tag, own_name(tag)) for tag in languages() if tag != language],
            _=partial(gettext, language),
            claims=claims,
            shown_claims=to_json(claims, indent=2).decode(),
            goods=_GOODS,
            figures=_FIGURES,
            **notice,
        )
        return HTMLResponse(html, headers={"Cache-Control": "no-store", "Vary": "Accept-Language, Cookie"})


def _language(request: Request) -> str:
    return language_of(request, ui_locales=request.session.get("lang"))


async def add_sites(database: Database, url: str, settings: Settings, *, now: datetime) -> None:
    """Add both websites, which are at this URL, as clients."""
    known = {app.app_id: app.app_id for app in settings.apps}  # with the real WeChat, the simulator's apps are unknown
    for site in SITES:
        here = f"http://127.0.0.1{site.path}"  # any port is allowed (RFC 8252, section 7.3)
        await ensure_own_client(
            database,
            site.name,
            title=localized(site.title),
            logo=site.logo,
            redirect_uris=[f"{here}/callback"],
            logout_uris=[f"{here}/"],
            backchannel_logout_uri=f"{url}{site.path}/backchannel-logout",
            sso=True,
            link=True,
            account_app_id=known.get(ACCOUNT["app_id"]),
            website_app_id=known.get(WEBSITE["app_id"]),
            scopes=site.scopes,
            now=now,
        )


async def add_shop(database: Database, *, now: datetime) -> Credentials:
    """Add the shop as a client that may sign. If the client exists, renew its secret, so that it need not be stored."""
    try:
        credentials = await add_client(database, build_client(_NAME, {"scopes": [Scope.SIGN]}), now=now)
    except NameTaken:
        credentials, _ = await renew_secret(database, _NAME, now=now)
    assert credentials is not None
    return credentials


def create_shop(issuer: str, credentials: Credentials) -> FastAPI:
    """Return the shop as an ASGI app. After `POST /failures`, the shop returns an error for WeChat's next message."""
    env = {
        "WXAUTH_ISSUER": issuer,
        "CLIENT_ID": credentials.client_id,
        "CLIENT_SECRET": credentials.client_secret,
        "APP_KEY": APP_KEYS[0],
        "PUSH_TOKEN": APPS[0]["push_token"],
    }
    shop: FastAPI = run_path(str(_IN_WHEEL if _IN_WHEEL.exists() else _IN_CHECKOUT))["create_shop"](env)

    failures = 0

    @shop.post("/failures", status_code=204)
    async def fail_at_next_message() -> None:
        nonlocal failures
        failures += 1

    @shop.middleware("http")
    async def fail(request: Request, call_next: RequestResponseEndpoint) -> Response:
        nonlocal failures
        if failures and request.method == "POST" and request.url.path.endswith(PUSH_PATH):
            failures -= 1
            return Response(status_code=500)
        return await call_next(request)

    @shop.get("/count")
    async def count(_: Annotated[Principal, Depends(BearerGuard(issuer=issuer))]) -> Any:
        return StreamingResponse(_counted(), media_type="text/plain")

    return shop


async def _counted() -> AsyncIterator[str]:
    for number in range(1, _PIECES + 1):
        yield f"{number} "
        await asyncio.sleep(_PIECE_SECONDS)
