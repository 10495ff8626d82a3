"""A website whose users log in by scanning a QR code.

One login works on several sites, and the site's sessions end when the sessions in wxauth end.
"""

import os
import secrets
import time
from html import escape
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from authlib.integrations.starlette_client import OAuth, OAuthError
from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from starlette.middleware.sessions import SessionMiddleware

SITE = os.environ.get("SITE_URL", "http://127.0.0.1:9000")
ISSUER = os.environ.get("WXAUTH_ISSUER", "http://127.0.0.1:8000")
CLIENT_ID = os.environ.get("WXAUTH_CLIENT_ID", "shop")
ALGORITHMS = ["RS256"]  # the algorithms of id_tokens and logout tokens
LOGGED_OUT = "http://schemas.openid.net/event/backchannel-logout"
TWO_WEEKS = 14 * 24 * 3600
LOG_IN = '<a href="/login">登录 Log in</a>'


def made_once(file: Path) -> str:
    """Return the secret of this site. The first start creates it, in a file that only the site's own user can read."""
    if not file.exists():
        draft = file.with_suffix(".draft")
        draft.touch(0o600)
        draft.write_text(secrets.token_urlsafe(32))
        draft.rename(file)
    return file.read_text()


wxauth = OAuth().register(
    "wxauth",
    client_id=CLIENT_ID,
    client_secret=os.environ["WXAUTH_CLIENT_SECRET"],  # printed by `wxauth clients add`
    server_metadata_url=f"{ISSUER}/.well-known/openid-configuration",
    client_kwargs={"scope": "openid profile", "code_challenge_method": "S256"},
)
sessions = {}  # the user of each `sid`; if you run several processes, use your database
is_https = SITE.startswith("https:")
app = FastAPI()
app.add_middleware(
    SessionMiddleware,
    secret_key=made_once(Path(f".{CLIENT_ID}.secret")),
    session_cookie=f"__Host-{CLIENT_ID}" if is_https else CLIENT_ID,  # cookies do not distinguish ports
    https_only=is_https,
    max_age=TWO_WEEKS,
)


def user_of(request: Request):
    return sessions.get(request.session.get("sid"))


def page(content: str, status: int = 200):
    head = f'<meta name="viewport" content="width=device-width"><title>{CLIENT_ID}</title>'
    html = f'<!doctype html><html lang="zh-CN">{head}<main><h1>{CLIENT_ID}</h1>{content}</main></html>'
    return HTMLResponse(html, status)


@app.get("/")
async def home(request: Request):
    if (user := user_of(request)) is None:
        return page(LOG_IN)
    name = escape(user["name"] or user["id"])
    return page(f'<p>{name}</p><form method="post" action="/logout"><button>退出 Log out</button></form>')


@app.get("/login")
async def log_in(request: Request):
    return await wxauth.authorize_redirect(request, f"{SITE}/callback")


@app.get("/callback")
async def come_back(request: Request):
    token = await wxauth.authorize_access_token(request)
    claims, now = token["userinfo"], time.time()
    for sid in [sid for sid, user in sessions.items() if user["until"] < now]:
        del sessions[sid]
    user = {"id": claims["sub"], "name": claims.get("name")}  # the id is the same everywhere in wxauth
    sessions[claims["sid"]] = {**user, "id_token": token["id_token"], "until": now + TWO_WEEKS}
    request.session["sid"] = claims["sid"]
    return RedirectResponse("/")


@app.post("/logout")
async def log_out(request: Request):
    user = sessions.pop(request.session.pop("sid", None), {"id_token": ""})
    asked = urlencode({"id_token_hint": user["id_token"], "post_logout_redirect_uri": f"{SITE}/"})
    return RedirectResponse(f"{ISSUER}/v1/end_session?{asked}", 303)


@app.post("/backchannel-logout")
async def backchannel_logout(logout_token: Annotated[str, Form()] = ""):
    required = {name: {"essential": True} for name in ("exp", "iat", "sid", "events")}
    rules = jwt.JWTClaimsRegistry(
        **required, iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": CLIENT_ID}
    )
    try:
        token = await decoded(logout_token)
        rules.validate(token.claims)
    except (JoseError, ValueError):
        return Response(status_code=400)
    if token.header.get("typ") != "logout+jwt" or LOGGED_OUT not in token.claims["events"] or "nonce" in token.claims:
        return Response(status_code=400)
    sessions.pop(token.claims["sid"], None)
    return Response(status_code=204)


async def decoded(token: str):
    """Return the token if wxauth has signed it. If the key is unknown, fetch the keys again, because it may be new."""
    try:
        return jwt.decode(token, KeySet.import_key_set(await wxauth.fetch_jwk_set()), ALGORITHMS)
    except InvalidKeyIdError:
        return jwt.decode(token, KeySet.import_key_set(await wxauth.fetch_jwk_set(force=True)), ALGORITHMS)


@app.exception_handler(OAuthError)
async def refused(request: Request, error: OAuthError):
    """Show the error, for example `access_denied` if the user refuses on the phone."""
    return page(f"<p>{escape(error.error)}</p>{LOG_IN}", 403)
