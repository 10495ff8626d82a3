"""Two small websites that share one login by scan, a shop and its admin. They are complete, using Authlib's client.

Sites in production differ in three ways. Each has its own secret: `wxauth clients add NAME --sso --redirect-uri
https://…/callback`. Their sessions are where all processes find them. And an admin admits only people with a role.
"""

import warnings
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from wxauth.problems import Language
from wxauth.server.dev.site_pages import ADMIN, SHOP, SITES, TAGS, Site, page
from wxauth.server.websites.pages import language_of

_MOST_SESSIONS: Final = 1000


def create_site(issuer: str, *, url: str, cookie_secret: str, back_end: BaseRoute | None = None) -> Starlette:
    """Both websites as an ASGI app, for this URL, beside the shop's back end. Raises: ModuleNotFoundError (Authlib)."""
    shop, admin = (_create_site(each, issuer, url=url + each.path, cookie_secret=cookie_secret) for each in SITES)

    async def with_slash(request: Request) -> Response:
        return RedirectResponse(f"{url}{ADMIN.path}/")

    async def style(_: Request) -> Response:
        return FileResponse(Path(__file__).with_name("site.css"))

    own = [Route("/site.css", style), Route(ADMIN.path, with_slash), *([back_end] if back_end else [])]
    return Starlette(routes=[*own, Mount(ADMIN.path, admin), Mount(SHOP.path, shop)])


def _create_site(site: Site, issuer: str, *, url: str, cookie_secret: str) -> Starlette:
    with warnings.catch_warnings(record=True):  # Authlib warns about changes in its next version
        from authlib.integrations.starlette_client import OAuth, OAuthError
        from authlib.oidc.core import CodeIDToken

    oauth = OAuth()
    oauth.register(
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
    sessions: dict[str, dict[str, Any]] = {}
    """The claims and the id_token of open sessions, by `sid`, the session's id in wxauth and in the cookie."""

    def shown(request: Request, claims: dict[str, Any] | None, **notice: Any) -> Response:
        return page(site, ADMIN if site is SHOP else SHOP, _language(request), claims, **notice)

    async def home(request: Request) -> Response:
        if "lang" in request.query_params:
            request.session["lang"] = request.query_params["lang"]
            return RedirectResponse(f"{url}/")
        sid = request.session.get("sid")
        if sid in sessions:
            return shown(request, sessions[sid]["claims"])
        return shown(request, None, was_told=request.session.pop("sid", None) is not None)

    async def log_in(request: Request) -> Any:
        tag = TAGS[_language(request)]
        return await oauth.wxauth.authorize_redirect(request, f"{url}/callback", ui_locales=tag)

    async def come_back(request: Request) -> Response:
        try:
            token = await oauth.wxauth.authorize_access_token(request)
        except OAuthError as exc:
            return shown(request, None, error=exc.error)
        claims = {name: value for name, value in token["userinfo"].items() if name != "nonce"}
        request.session["sid"] = claims["sid"]
        sessions[claims["sid"]] = {"claims": claims, "id_token": token["id_token"]}
        if len(sessions) > _MOST_SESSIONS:
            del sessions[next(iter(sessions))]
        return RedirectResponse(f"{url}/")

    async def log_out(request: Request) -> Response:
        session = sessions.pop(request.session.pop("sid", ""), None)
        asked = {"post_logout_redirect_uri": f"{url}/", "ui_locales": TAGS[_language(request)]}
        asked |= {"id_token_hint": session["id_token"]} if session else {"client_id": site.name}
        return RedirectResponse(f"{issuer}/v1/end_session?{urlencode(asked)}")

    async def state(request: Request) -> Response:
        return JSONResponse(request.session.get("sid") in sessions, headers={"Cache-Control": "no-store"})

    async def hear_of_logout(request: Request) -> Response:
        """Back-Channel Logout 1.0. The signature, issuer, audience and lifetime are checked as an id_token's are."""
        form = parse_qs((await request.body()).decode())
        try:
            told = await oauth.wxauth.parse_id_token(
                {"id_token": form["logout_token"][0]},
                nonce=None,
                claims_cls=CodeIDToken,
                claims_options={
                    "iss": {"essential": True, "value": issuer},
                    "aud": {"essential": True, "value": site.name},
                },
            )
            if "http://schemas.openid.net/event/backchannel-logout" not in told["events"] or "nonce" in told:
                return Response(status_code=400)
        except Exception:  # whatever it is that was sent
            return Response(status_code=400)
        sessions.pop(told["sid"], None)
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/login", log_in),
            Route("/callback", come_back),
            Route("/logout", log_out),
            Route("/state", state),
            Route("/backchannel-logout", hear_of_logout, methods=["POST"]),
        ],
        middleware=[
            Middleware(
                SessionMiddleware,
                secret_key=cookie_secret,
                session_cookie=site.name,
                path=site.path or "/",
                max_age=None,
            )
        ],
    )


def _language(request: Request) -> Language:
    return language_of(request, ui_locales=request.session.get("lang"))
