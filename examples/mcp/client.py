"""An agent that calls one tool for a user. The user approves this on their phone.

CLIENT_ID=… CLIENT_SECRET=… python client.py place_order '{"item": "oolong tea"}'
"""

import asyncio
import json
import os
import sys
import webbrowser
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl


class Memory:
    """The agent's client data and tokens. In production, store them as securely as passwords."""

    def __init__(self, client: OAuthClientInformationFull | None) -> None:
        self.client = client
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Browser:
    """The user's browser, which opens the page with the QR code, and a server that receives the authorization code."""

    def __init__(self, port: int) -> None:
        self.redirect_uri = f"http://127.0.0.1:{port}/callback"
        self._port = port
        self._query: asyncio.Future[dict[str, list[str]]] = asyncio.get_running_loop().create_future()

    async def open(self, url: str) -> None:
        self._server = await asyncio.start_server(self._receive, "127.0.0.1", self._port)
        print(f"Approve it on your phone: {url}", file=sys.stderr)
        webbrowser.open(url)

    async def code(self) -> AuthorizationCodeResult:
        async with self._server:
            query = await self._query
        if "code" not in query:
            raise SystemExit(f"not approved: {' '.join(query.get('error', []) + query.get('error_description', []))}")
        return AuthorizationCodeResult(**{name: query[name][0] for name in ("code", "state", "iss") if name in query})

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, target, _ = (await reader.readline()).decode().split(" ")
        url = urlsplit(target)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nYou can close this page.\n")
        await writer.drain()
        writer.close()
        if url.path == "/callback" and not self._query.done():
            self._query.set_result(parse_qs(url.query))


def provider(url: str, client_id: str, client_secret: str | None, browser: Browser) -> OAuthClientProvider:
    """Return the client of the authorization server.

    The client is either registered in wxauth, or described by the metadata document at the URL that is its id.
    """
    metadata = OAuthClientMetadata(redirect_uris=[AnyUrl(browser.redirect_uri)], client_name="An agent")
    by_document = client_id.startswith("https://")
    registered = OAuthClientInformationFull(
        client_id=client_id,
        client_secret=client_secret,
        token_endpoint_auth_method="client_secret_basic",
        redirect_uris=metadata.redirect_uris,
    )
    return OAuthClientProvider(
        url,
        metadata,
        Memory(None if by_document else registered),
        redirect_handler=browser.open,
        callback_handler=browser.code,
        client_metadata_url=client_id if by_document else None,
    )


async def call(tool: str, arguments: dict[str, object]) -> None:
    url = os.environ.get("RESOURCE", "http://127.0.0.1:8005/mcp")
    browser = Browser(int(os.environ.get("CALLBACK_PORT", "8012")))
    auth = provider(url, os.environ["CLIENT_ID"], os.environ.get("CLIENT_SECRET"), browser)
    async with (
        httpx2.AsyncClient(auth=auth, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        result = await client.call_tool(tool, arguments)
        print(*(block.text for block in result.content if block.type == "text"))


if __name__ == "__main__":
    asyncio.run(call(sys.argv[1], json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}")))
