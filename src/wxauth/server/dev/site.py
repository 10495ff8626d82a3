"""A small website that logs people in by scan. It is complete, using Authlib's client.

A production site differs in two ways. It has its own secret:
`wxauth clients add NAME --redirect-uri https://…/callback`. And it keeps no id_token in a cookie that the browser can
read.
"""

import warnings
from html import escape
from typing import Any, Final
from urllib.parse import urlencode

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

NAME: Final = "wxauth-example"
"""The site's client_id. It is a public client, which `wxauth dev` adds."""
TITLE: Final = "示例网站 Example"
SCOPES: Final = ("openid", "profile", "phone", "roles")
REDIRECT_URI: Final = "http://127.0.0.1/callback"
"""Any port is allowed (RFC 8252, section 7.3)."""
LOGOUT_URI: Final = "http://127.0.0.1/"

_PAGE: Final = """<!doctype html>
<html lang="zh-CN">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<body style="max-width: 40rem; margin: 3rem auto; padding: 0 1rem; font: 16px/1.6 system-ui, sans-serif">
<h1>{title}</h1>
{body}
</html>
"""


def create_site(issuer: str, *, url: str, cookie_secret: str) -> Starlette:
    """The website as an ASGI app, for this URL. Raises: ModuleNotFoundError, without Authlib."""
    with warnings.catch_warnings(record=True):  # Authlib warns about changes in its next version
        from authlib.integrations.starlette_client import OAuth, OAuthError

    oauth = OAuth()
    oauth.register(
        "wxauth",
        client_id=NAME,
        server_metadata_url=f"{issuer}/.well-known/openid-configuration",
        client_kwargs={
            "scope": " ".join(SCOPES),
            "code_challenge_method": "S256",
            "token_endpoint_auth_method": "none",
            "trust_env": False,
        },
    )

    async def home(request: Request) -> Response:
        user = request.session.get("user")
        if user is None:
            return _page('<p><a href="/login">微信扫码登录 Log in with WeChat</a></p>')
        shown = escape(to_json(user, indent=2).decode())
        return _page(f'<p>已登录 Logged in</p><pre>{shown}</pre><p><a href="/logout">退出 Log out</a></p>')

    async def log_in(request: Request) -> Any:
        return await oauth.wxauth.authorize_redirect(request, f"{url}/callback")

    async def come_back(request: Request) -> Response:
        try:
            token = await oauth.wxauth.authorize_access_token(request)
        except OAuthError as exc:
            return _page(f'<p>未登录 Not logged in: {escape(exc.error)}</p><p><a href="/">返回 Back</a></p>')
        request.session["user"] = {name: value for name, value in token["userinfo"].items() if name != "nonce"}
        request.session["id_token"] = token["id_token"]
        return RedirectResponse("/")

    async def log_out(request: Request) -> Response:
        hint = request.session.pop("id_token", "")
        request.session.clear()
        asked = urlencode({"id_token_hint": hint, "post_logout_redirect_uri": f"{url}/"})
        return RedirectResponse(f"{issuer}/v1/end_session?{asked}")

    return Starlette(
        routes=[
            Route("/", home),
            Route("/login", log_in),
            Route("/callback", come_back),
            Route("/logout", log_out),
        ],
        middleware=[Middleware(SessionMiddleware, secret_key=cookie_secret, session_cookie="wxauth-example")],
    )


def _page(body: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=TITLE, body=body), headers={"Cache-Control": "no-store"})
