"""An unregistered agent, and the host that publishes the agent's document."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.sites.protected import MCP
from tests.world import Body
from wxauth.outbound.connection import HttpAnswer
from wxauth.outbound.transport import ANSWER

HOST = "claude.test"
AGENT, BACK = f"https://{HOST}/oauth/agent", f"https://{HOST}/callback"
DOCUMENT: Body = {
    "client_id": AGENT,
    "client_name": "Claude",
    "redirect_uris": [BACK, "http://localhost/cb", "http://127.0.0.1:1/cb"],
    "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
}
ASKING: dict[str, Any] = {"client_id": AGENT, "redirect_uri": BACK, "resource": MCP, "scope": None, "nonce": None}


@dataclass
class Host(httpx.AsyncBaseTransport):
    """Responds to the URL of each document with a body, a complete response or a failure."""

    documents: dict[str, Any] = field(default_factory=lambda: {AGENT: DOCUMENT})
    cache_control: str | None = None
    asked: list[str] = field(default_factory=list)
    may_answer: asyncio.Event | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        assert (request.method, request.headers["accept"]) == ("GET", "application/json")
        if self.may_answer is not None:
            await self.may_answer.wait()
        found = self.documents.get(str(request.url), 404)
        if isinstance(found, Exception):
            raise found
        status, body = (found, b"") if isinstance(found, int) else (200, json.dumps(found).encode())
        answered = HttpAnswer(
            status, body, is_encoded=False, content_type="application/json", cache_control=self.cache_control
        )
        return httpx.Response(status, extensions={ANSWER: answered})
