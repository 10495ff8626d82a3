"""A login without its WeChat call: wxauth itself, run as `wxauth serve` runs one worker, except for the network.

Refreshes are measured with it, to compare them with a login that does not call WeChat.
"""

import asyncio
import gc

import httpx
import uvicorn
from starlette.types import ASGIApp

from benchmarks.standin import code2session
from wxauth.server.core.logs import configure_logging
from wxauth.server.core.settings import Settings, load_settings
from wxauth.server.service.app import create_app
from wxauth.server.service.build import build_services
from wxauth.server.service.server import GC_THRESHOLDS, check_stored_state, listen, uvicorn_options
from wxauth.server.web.http_server import Server


class AtOnce(httpx.AsyncBaseTransport):
    """WeChat's stand-in, called within the process."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=code2session(request.extensions["target"]))


def worker_app() -> ASGIApp:
    """The service's app, except for its WeChat transport."""
    settings = load_settings(Settings)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    app = create_app(build_services(settings, wechat_transport=AtOnce()))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return app


def serve(settings: Settings) -> None:
    """As `wxauth.server.service.server.serve`."""
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    asyncio.run(check_stored_state(settings))
    listener = listen(settings.host, settings.port)
    config = uvicorn.Config(worker_app, factory=True, workers=1, **uvicorn_options())
    Server(config).run([listener])


if __name__ == "__main__":
    serve(load_settings(Settings))
