"""The back end of the shop that the simulated mini-program belongs to: `examples/sibling/shop.py`, and a stream."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from runpy import run_path
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI
from starlette.responses import StreamingResponse

from wxauth.errors import NameTaken
from wxauth.guard import BearerGuard, Principal
from wxauth.server.clients.clients import Credentials, add_client, build_client, renew_secret
from wxauth.server.clients.models import Scope
from wxauth.server.core.database import Database
from wxauth.server.dev.wechat import APP_KEYS, APPS

PUSH_PATH: Final = "/wechat"
"""Where it takes the messages that are handed on."""

_NAME: Final = "dev-shop"
_IN_WHEEL: Final = Path(__file__).parents[2] / "_examples" / "shop.py"
_IN_CHECKOUT: Final = Path(__file__).parents[4] / "examples" / "sibling" / "shop.py"
_PIECES: Final = 10
_PIECE_SECONDS: Final = 0.3


async def add_shop(database: Database, *, now: datetime) -> Credentials:
    """Add the shop as a client that may sign, or give it a new secret, so that none has to be stored."""
    try:
        credentials = await add_client(database, build_client(_NAME, {"scopes": [Scope.SIGN]}), now=now)
    except NameTaken:
        credentials, _ = await renew_secret(database, _NAME, now=now)
    assert credentials is not None
    return credentials


def create_shop(issuer: str, credentials: Credentials) -> FastAPI:
    """The shop as an ASGI app."""
    env = {
        "WXAUTH_ISSUER": issuer,
        "CLIENT_ID": credentials.client_id,
        "CLIENT_SECRET": credentials.client_secret,
        "APP_KEY": APP_KEYS[0],
        "PUSH_TOKEN": APPS[0]["push_token"],
    }
    shop: FastAPI = run_path(str(_IN_WHEEL if _IN_WHEEL.exists() else _IN_CHECKOUT))["create_shop"](env)

    @shop.get("/count")
    async def count(_: Annotated[Principal, Depends(BearerGuard(issuer=issuer))]) -> Any:
        return StreamingResponse(_counted(), media_type="text/plain")

    return shop


async def _counted() -> AsyncIterator[str]:
    for number in range(1, _PIECES + 1):
        yield f"{number} "
        await asyncio.sleep(_PIECE_SECONDS)
