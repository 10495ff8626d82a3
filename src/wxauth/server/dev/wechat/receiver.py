"""A webhook receiver on the desk. It shows the messages received, and can be made to fail."""

import asyncio
import hmac
import time
from base64 import b64decode
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wxauth.server.events.sending import signed_headers

WEBHOOK_PATH: Final = "/webhook"
MAX_MESSAGES: Final = 50
TOLERANCE: Final = 300
"""Seconds by which a message's timestamp may be off (Standard Webhooks 1.0.0)."""

_MAX_BODY: Final = 64 * 1024
_HANG_SECONDS: Final = 3600
_PREFIX: Final = "whsec_"


class Behaviour(BaseModel):
    """The receiver's secret, and its answer. A request changes only the fields that it contains."""

    secret: str | None = Field(default=None, max_length=200)
    answer: Literal["hang"] | int = Field(default=204)


class Receiver:
    """Keeps the newest messages, each with the verdict on its signature and the answer."""

    def __init__(self) -> None:
        self._behaviour = Behaviour()
        self._messages: deque[dict[str, Any]] = deque(maxlen=MAX_MESSAGES)

    def routes(self) -> list[Route]:
        """The route for wxauth's messages, and those for the desk."""
        return [
            Route(WEBHOOK_PATH, self._receive, methods=["POST"]),
            Route(WEBHOOK_PATH + "/messages", self._list_messages),
            Route(WEBHOOK_PATH + "/behaviour", self._set_behaviour, methods=["POST"]),
        ]

    async def _receive(self, request: Request) -> Response:
        body = (await request.body())[:_MAX_BODY]
        answer = self._behaviour.answer
        self._messages.appendleft(
            {
                "id": request.headers.get("webhook-id"),
                "at": time.time(),
                "signature": self._judge(request.headers, body),
                "message": _read(body),
                "answer": answer,
            }
        )
        if answer == "hang":
            await asyncio.sleep(_HANG_SECONDS)
        return Response(status_code=204 if answer == "hang" else answer)

    async def _list_messages(self, _: Request) -> Response:
        state = {"answer": self._behaviour.answer, "messages": list(self._messages)}
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    async def _set_behaviour(self, request: Request) -> Response:
        try:
            behaviour = Behaviour.model_validate_json(await request.body())
            if behaviour.secret:
                _key(behaviour.secret)
            if behaviour.answer != "hang" and not 200 <= behaviour.answer <= 599:
                raise ValueError
        except ValidationError as exc:
            return JSONResponse({"error": exc.errors()[0]["msg"]}, status_code=422)
        except ValueError:
            wanted_form = "Must be a secret as wxauth prints it, and a status or 'hang'"
            return JSONResponse({"error": wanted_form}, status_code=422)
        self._behaviour = self._behaviour.model_copy(update=behaviour.model_dump(include=behaviour.model_fields_set))
        return JSONResponse({"answer": self._behaviour.answer})

    def _judge(self, headers: Mapping[str, str], body: bytes) -> Literal["holds", "does not hold", "secret unknown"]:
        if not self._behaviour.secret:
            return "secret unknown"
        message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
            return "does not hold"
        at = datetime.fromtimestamp(int(timestamp), UTC)
        expected = signed_headers(message_id, body, [_key(self._behaviour.secret)], now=at)["webhook-signature"]
        given = headers.get("webhook-signature", "").split(" ")
        is_signed = any(hmac.compare_digest(expected.encode(), each.encode()) for each in given)
        return "holds" if is_signed else "does not hold"


def _key(secret: str) -> bytes:
    """Raises: ValueError."""
    return b64decode(secret.strip().removeprefix(_PREFIX), validate=True)


def _read(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:
        return None
