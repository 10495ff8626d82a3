"""uvicorn's server, for connections of `HttpProtocol`."""

import asyncio
from typing import Final, cast

import uvicorn

from wxauth.web.http_protocol import HttpProtocol

_TICKS_BETWEEN_LOOKS: Final = 5
"""uvicorn's, ten a second."""


class Server(uvicorn.Server):
    """Looks at the clock for all connections, which costs less than a timer for each request."""

    async def on_tick(self, counter: int) -> bool:
        """What uvicorn calls ten times a second."""
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.look_at_clock(now)
        return await super().on_tick(counter)

    def _connections(self) -> list[HttpProtocol]:
        return cast("list[HttpProtocol]", list(self.server_state.connections))
