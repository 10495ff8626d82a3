"""A receiver of wxauth's webhook messages. The desk shows the messages, and can make the receiver simulate failures."""

import asyncio
import hmac
import re
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

WEBHOOK_PATH: Final = "/webhook"
_MAX_MESSAGES: Final = 50
# The libraries of Standard Webhooks have the same limit.
_TOLERANCE_SECONDS: Final = 300
# For a larger message, the desk shows everything but the content.
_MAX_SHOWN_BYTES: Final = 64 * 1024
# Every caller has given up by then.
_HANG_SECONDS: Final = 3600
_TIMESTAMP: Final = re.compile("[0-9]{1,12}")
_KEY_PREFIX: Final = "whsec_"  # before the key in a secret (Standard Webhooks 1.0.0)


def _checked_secret(secret: str) -> str:
    if secret:
        _key_in(secret)
    return secret


class Behaviour(BaseModel):
    """The receiver's secret, and its response. A request changes only the fields that it contains."""

    # Without the secret of the webhook in wxauth, no signature can be checked.
    secret: Annotated[str, Field(max_length=200), AfterValidator(_checked_secret)] | None = None
    # With `hang`, the status is 204, but the response comes only after `_HANG_SECONDS`.
    answer: Literal["hang"] | Annotated[int, Field(ge=200, le=599)] = 204


class Receiver:
    """A receiver that stores the newest messages, each with the verdict on its signature and the response."""

    def __init__(self) -> None:
        self._behaviour = Behaviour()
        self._messages: deque[dict[str, Any]] = deque(maxlen=_MAX_MESSAGES)

    def routes(self) -> list[Route]:
        """Return the route that receives wxauth's messages, and the route that lists them for the desk."""
        return [
            Route(WEBHOOK_PATH, self._receive, methods=["POST"]),
            Route(WEBHOOK_PATH + "/messages", self._list_messages),
        ]

    def change_behaviour(self, changes: Behaviour) -> dict[str, Any]:
        """Change the fields of the behaviour that the request contains. Return the behaviour without the secret."""
        self._behaviour = self._behaviour.model_copy(update=changes.model_dump(include=changes.model_fields_set))
        return {"answer": self._behaviour.answer}

    async def _receive(self, request: Request) -> Response:
        body = await request.body()
        answer = self._behaviour.answer
        now = time.time()
        self._messages.appendleft(
            {
                "id": request.headers.get("webhook-id"),
                "at": now,
                "signature": self._judge(request.headers, body, now=now),
                "message": _json_or_none(body) if len(body) <= _MAX_SHOWN_BYTES else None,
                "answer": answer,
            }
        )
        if answer == "hang":
            await asyncio.sleep(_HANG_SECONDS)
        return Response(status_code=HTTPStatus.NO_CONTENT if answer == "hang" else answer)

    async def _list_messages(self, _request: Request) -> Response:
        state = {"answer": self._behaviour.answer, "messages": list(self._messages)}
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    def _judge(
        self, headers: Mapping[str, str], body: bytes, *, now: float
    ) -> Literal["holds", "does not hold", "secret unknown"]:
        if not self._behaviour.secret:
            return "secret unknown"
        message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not _TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > _TOLERANCE_SECONDS:
            return "does not hold"
        signed = b".".join((message_id.encode(), timestamp.encode(), body))  # as Standard Webhooks 1.0.0 specifies
        expected = f"v1,{b64encode(hmac.digest(_key_in(self._behaviour.secret), signed, 'sha256')).decode()}"
        signatures = headers.get("webhook-signature", "").split(" ")  # several while a secret is being replaced
        is_signed = any(hmac.compare_digest(expected.encode(), each.encode()) for each in signatures)
        return "holds" if is_signed else "does not hold"


def _key_in(secret: str) -> bytes:
    return b64decode(secret.strip().removeprefix(_KEY_PREFIX), validate=True)


def _json_or_none(body: bytes) -> Any:
    try:
        return from_json(body, allow_inf_nan=False)  # JSON for the page has no NaN
    except ValueError:
        return None
