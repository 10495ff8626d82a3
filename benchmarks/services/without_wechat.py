"""A login without its WeChat call, in wxauth itself, run like one process of `wxauth serve`, except for the network.

Refreshes are measured with it, to compare them with a login that does not call WeChat.
"""

import httpx
import uvicorn

from benchmarks.standin import code2session
from wxauth.core.logs import configure_logging
from wxauth.service.app import create_app
from wxauth.service.build import build_services
from wxauth.service.server import listen, uvicorn_options
from wxauth.settings.loading import load_settings
from wxauth.settings.settings import Settings


class AtOnce(httpx.AsyncBaseTransport):
    """A stand-in for WeChat, called within the process."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=code2session(request.extensions["target"]))


def serve(settings: Settings, *, wechat_transport: httpx.AsyncBaseTransport | None = None) -> None:
    """Serve in this process, like `wxauth serve` in its only process."""
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    app = create_app(build_services(settings, wechat_transport=wechat_transport))
    uvicorn.Server(uvicorn.Config(app, **uvicorn_options())).run([listen(settings.host, settings.port)])


if __name__ == "__main__":
    serve(load_settings(Settings), wechat_transport=AtOnce())
