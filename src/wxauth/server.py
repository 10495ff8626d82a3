"""Running the service in production: workers, uvloop and httptools, a graceful end."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final, NoReturn

import uvicorn
from starlette.types import ASGIApp

from wxauth.app import create_app
from wxauth.errors import StorageUnavailable
from wxauth.logs import configure_logging, get_logger
from wxauth.sealing import CannotOpen
from wxauth.services import Services
from wxauth.settings import InvalidSettings, Settings, load_settings, unknown_names

DRAIN_SECONDS: Final = 10
KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the usual proxy keeps its own idle connections, so that it is never the one to be surprised."""

log = get_logger()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises: InvalidSettings, where the stored keys do not open with this `WXAUTH_SECRET_KEY`.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    for line in unknown_names():
        log.warning("unknown_setting", reason=line)
    asyncio.run(_check_secret_key(settings))
    signal.signal(signal.SIGTERM, leave)
    uvicorn.run("wxauth.server:worker_app", factory=True, workers=settings.workers, **uvicorn_options(settings))


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """How uvicorn is to run, in production and in development."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": "httptools",
        "loop": "auto" if os.name == "nt" else "uvloop",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": True,
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }


def worker_app() -> ASGIApp:
    """The app of one worker process."""
    settings = load_settings(Settings)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    app = create_app(Services.build(settings))
    gc.collect()
    gc.freeze()  # what is there now stays; the collector need not look at it again
    return app


def leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Signal handler. uvicorn raises SIGTERM again when it has drained; a stop that was asked for is no failure."""
    raise SystemExit(0)


def _end_with(parent: int) -> None:
    # A worker whose parent was killed would serve on, unseen, on a port that the next start needs.
    wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)


async def _check_secret_key(settings: Settings) -> None:
    services = Services.build(settings)
    try:
        await services.keys.refresh()
    except StorageUnavailable:
        log.warning("database_does_not_answer", consequence="not ready until it does")
    except CannotOpen:
        raise InvalidSettings(
            [
                "WXAUTH_SECRET_KEY: wants the key that sealed what is stored; while rotating it, "
                "put the former one into WXAUTH_SECRET_KEY_PREVIOUS"
            ]
        ) from None
    finally:
        await services.aclose()
