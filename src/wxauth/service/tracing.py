"""The factory of the service's parts that traces wrap."""

from typing import Any

import httpx
from starlette.types import ASGIApp

from wxauth.core.database import Database
from wxauth.core.deadlines import Deadlines
from wxauth.wechat.client import WeChat


class Tracing:
    """A factory of parts without traces."""

    def app(self, app: ASGIApp) -> ASGIApp:
        """Return the app that is served."""
        return app

    def database(self, url: str, *, deadlines: Deadlines) -> Database:
        """Create the database at this URL."""
        return Database(url, deadlines=deadlines)

    def wechat(self, client: httpx.AsyncClient, **options: Any) -> WeChat:
        """Create a WeChat client. `options` are those of `WeChat`."""
        return WeChat(client, **options)

    async def aclose(self) -> None:
        """Send the spans that have not been sent yet."""
