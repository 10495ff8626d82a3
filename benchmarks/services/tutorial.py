"""The tutorial, a WeChat login as a good FastAPI article would write and run it.

It has one shared httpx client, SQLModel with an async session, select then insert or update, commit and refresh as in
SQLModel's own tutorial, an HS256 token, and uvicorn with its defaults.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid4

import httpx
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt
from pydantic import BaseModel
from sqlalchemy import DateTime
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

TTL = timedelta(minutes=15)
SECRET = os.environ["JWT_SECRET"]
TIMEOUT = 60.0
"""The timeout of a request, in seconds.

httpx's default of five is too short when 200 requests wait for its pool on a slow machine.
"""


def now() -> datetime:
    return datetime.now(UTC)


class User(SQLModel, table=True):
    __tablename__ = "users"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    openid: str = Field(unique=True, index=True)
    session_key: str
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    last_login_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class LoginRequest(BaseModel):
    code: str


class Token(BaseModel):
    access_token: str
    token_type: str = "Bearer"
    expires_in: int = int(TTL.total_seconds())


class UserRead(SQLModel):
    id: UUID
    openid: str
    created_at: datetime
    last_login_at: datetime


engine = create_async_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"))
new_session = async_sessionmaker(engine, class_=AsyncSession)
bearer = HTTPBearer()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with httpx.AsyncClient(base_url=os.environ["WECHAT_BASE_URL"], timeout=TIMEOUT) as app.state.http:
        yield
    await engine.dispose()


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]

app = FastAPI(lifespan=lifespan)


@app.post("/v1/login")
async def log_in(body: LoginRequest, request: Request, session: SessionDep) -> Token:
    query = {
        "appid": os.environ["APP_ID"],
        "secret": os.environ["APP_SECRET"],
        "js_code": body.code,
        "grant_type": "authorization_code",
    }
    answer = await request.app.state.http.get("/sns/jscode2session", params=query)
    wechat = answer.json()
    if wechat.get("errcode"):
        raise HTTPException(400, "WeChat refused the code")
    user = (await session.exec(select(User).where(User.openid == wechat["openid"]))).one_or_none()
    if user is None:
        user = User(openid=wechat["openid"], session_key=wechat["session_key"])
    else:
        user.session_key = wechat["session_key"]
        user.last_login_at = now()
    session.add(user)
    await session.commit()
    await session.refresh(user)
    claims = {"sub": str(user.id), "exp": now() + TTL}
    return Token(access_token=jwt.encode(claims, SECRET, algorithm="HS256"))


async def current_user(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)], session: SessionDep
) -> User:
    try:
        claims = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"])
    except JWTError:
        raise HTTPException(401, "invalid token") from None
    user = (await session.exec(select(User).where(User.id == UUID(claims["sub"])))).one_or_none()
    if user is None:
        raise HTTPException(401, "no such user")
    return user


@app.get("/v1/me")
async def read_me(user: Annotated[User, Depends(current_user)]) -> UserRead:
    return UserRead.model_validate(user, from_attributes=True)


if __name__ == "__main__":
    uvicorn.Server(uvicorn.Config(app, **json.loads(os.environ["UVICORN_OPTIONS"]))).run()
