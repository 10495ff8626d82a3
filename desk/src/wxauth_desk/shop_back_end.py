"""The example back end that the shop's mini-program calls.

The back end is `examples/sibling/shop.py`. This module adds two routes to it, with which the desk shows a failure and a
response in pieces.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from http import HTTPStatus
from runpy import run_path
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wxauth.clients.clients import Credentials, add_client, renew_secret
from wxauth.clients.models import Scope
from wxauth.clients.rules import build_client
from wxauth.core.database import Database
from wxauth.errors import NameTaken
from wxauth_desk.clone import shared_file
from wxauth_desk.wechat import APP_KEYS, APPS
from wxauth_guard import BearerGuard, Principal

PUSH_PATH: Final = "/wechat"  # of the route to which the service forwards WeChat's messages
_CLIENT_ID: Final = "dev-shop"
_COUNT_TO: Final = 10
_COUNT_PAUSE_SECONDS: Final = 0.3


async def add_shop_client(database: Database, *, now: datetime) -> Credentials:
    """Add a client for the shop's back end, with the scope `sign`, and return its credentials.

    If the client exists, replace its secret, because the desk does not keep this secret from one run to the next.
    """
    try:
        credentials = await add_client(database, build_client(_CLIENT_ID, {"scopes": [Scope.SIGN]}), now=now)
    except NameTaken:
        credentials, _scopes = await renew_secret(database, _CLIENT_ID, now=now)
    assert credentials is not None  # a client without a secret would have no credentials
    return credentials


def create_shop_back_end(issuer: str, credentials: Credentials) -> FastAPI:
    """Return the shop's back end as an ASGI app: the example, with two routes for the desk.

    After `POST /failures`, the shop returns an error for the next message from WeChat. `GET /count` sends its response
    in pieces, so that the desk can show how a mini-program receives them (`enableChunked`).
    """
    env = {
        "WXAUTH_ISSUER": issuer,
        "CLIENT_ID": credentials.client_id,
        "CLIENT_SECRET": credentials.client_secret,
        "APP_KEY": APP_KEYS[0],
        "PUSH_TOKEN": APPS[0]["push_token"],
    }
    shop_module = run_path(str(shared_file("examples/sibling/shop.py", name_in_wheel="shop.py")))
    shop: FastAPI = shop_module["create_shop"](env)

    failures_left = 0

    @shop.post("/failures", status_code=HTTPStatus.NO_CONTENT)
    async def fail_at_next_message() -> None:
        nonlocal failures_left
        failures_left += 1

    @shop.middleware("http")
    async def fail_if_requested(request: Request, call_next: RequestResponseEndpoint) -> Response:
        nonlocal failures_left
        is_message = request.method == "POST" and request.url.path.endswith(PUSH_PATH)
        if is_message and failures_left:
            failures_left -= 1
            return Response(status_code=HTTPStatus.INTERNAL_SERVER_ERROR)
        return await call_next(request)

    @shop.get("/count")
    async def count(_principal: Annotated[Principal, Depends(BearerGuard(issuer=issuer))]) -> Any:
        return StreamingResponse(_counted(), media_type="text/plain")

    return shop


async def _counted() -> AsyncIterator[str]:
    for number in range(1, _COUNT_TO + 1):
        yield f"{number} "
        await asyncio.sleep(_COUNT_PAUSE_SECONDS)
