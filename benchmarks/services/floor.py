"""The floor, a service that does about the least work with which FastAPI can handle a login.

It uses aiohttp, a raw asyncpg pool, one simple upsert, and an ES256 token signed with a prebuilt key. It has no
sessions and no refresh token, and neither seals nor logs anything.
"""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import aiohttp
import asyncpg
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from jose import JWTError, jwk, jwt
from pydantic import BaseModel

TTL = 900
ISSUER = "http://127.0.0.1:8000"
AUDIENCE = "floor"
REQUIRED = {"require_exp": True, "require_aud": True, "require_iss": True, "require_sub": True}

TABLE = """
CREATE TABLE IF NOT EXISTS users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    openid text NOT NULL UNIQUE,
    session_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_login_at timestamptz NOT NULL DEFAULT now()
)
"""
UPSERT = """
INSERT INTO users (openid, session_key) VALUES ($1, $2)
ON CONFLICT (openid) DO UPDATE SET session_key = excluded.session_key, last_login_at = now()
RETURNING id
"""
SELECT = "SELECT id, openid, created_at, last_login_at FROM users WHERE id = $1"

SIGNING_KEY = jwk.construct(
    ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "ES256"
)
PUBLIC_KEY = SIGNING_KEY.public_key()


class LoginRequest(BaseModel):
    code: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with (
        asyncpg.create_pool(os.environ["DATABASE_URL"]) as app.state.pool,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=256)) as app.state.http,
    ):
        await app.state.pool.execute(TABLE)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/login")
async def log_in(body: LoginRequest, request: Request) -> dict[str, Any]:
    query = {
        "appid": os.environ["APP_ID"],
        "secret": os.environ["APP_SECRET"],
        "js_code": body.code,
        "grant_type": "authorization_code",
    }
    async with request.app.state.http.get(
        os.environ["WECHAT_BASE_URL"] + "/sns/jscode2session", params=query
    ) as answer:
        wechat = await answer.json(content_type=None)
    if wechat.get("errcode"):
        raise HTTPException(400, "WeChat refused the code")
    user_id = await request.app.state.pool.fetchval(UPSERT, wechat["openid"], wechat["session_key"])
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(user_id), "iat": now, "exp": now + TTL}
    token = jwt.encode(claims, SIGNING_KEY, algorithm="ES256")
    return {"access_token": token, "token_type": "Bearer", "expires_in": TTL}


async def current_user(request: Request, authorization: Annotated[str, Header()] = "") -> asyncpg.Record:
    try:
        claims = jwt.decode(
            authorization.removeprefix("Bearer "),
            PUBLIC_KEY,
            algorithms=["ES256"],
            audience=AUDIENCE,
            issuer=ISSUER,
            options=REQUIRED,
        )
    except JWTError:
        raise HTTPException(401, "invalid token") from None
    user = await request.app.state.pool.fetchrow(SELECT, UUID(claims["sub"]))
    if user is None:
        raise HTTPException(401, "no such user")
    return user


@app.get("/v1/me")
async def read_me(user: Annotated[asyncpg.Record, Depends(current_user)]) -> dict[str, Any]:
    return dict(user)


if __name__ == "__main__":
    uvicorn.Server(uvicorn.Config(app, **json.loads(os.environ["UVICORN_OPTIONS"]))).run()
