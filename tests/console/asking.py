"""The requests with which the console's page asks for its session."""

import httpx

from tests.world import Client

SESSION = "/admin/session"
ASKED_BY_THE_PAGE = {"X-Wxauth-Console": "1"}
COOKIE = "__Host-wxauth-console"


async def extend_session(client: Client) -> httpx.Response:
    return await client.put(SESSION, headers=ASKED_BY_THE_PAGE)
