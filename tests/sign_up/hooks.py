"""Sign-up hooks that respond as a test sets."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def text(body: bytes, status: int = 200) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def respond(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, content_type="application/json")

    return respond


def saying(status: int = 200, **answer: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    return text(json.dumps(answer).encode(), status)
