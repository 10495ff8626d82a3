"""The factory of the parts that a trace covers. If traces are enabled, its subclass `spans.Spans` replaces it."""

from typing import Any

import httpx
from starlette.types import ASGIApp

from wxauth.core.database import Database
from wxauth.core.deadlines import Deadlines
from wxauth.wechat.client import WeChat


class Tracing:
    """The factory for a service without traces. Its parts create no spans."""

    def app(self, app: ASGIApp) -> ASGIApp:
        """Return the app unchanged. `spans.Spans` wraps it in a middleware instead."""
        return app

    def database(self, url: str, *, deadlines: Deadlines) -> Database:
        """Return a `Database` for this URL."""
        return Database(url, deadlines=deadlines)

    def wechat(self, client: httpx.AsyncClient, **options: Any) -> WeChat:
        """Return a WeChat client. `options` are passed to `WeChat`."""
        return WeChat(client, **options)

    async def aclose(self) -> None:
        """Send the spans that have not been sent yet. Without traces, there are none."""
