"""Running the service in production: workers, uvloop and httptools, a graceful end."""

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final, NoReturn

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from wxauth.core.clock import DatabaseClock
from wxauth.core.database import DatabaseUrlRefused, reason_of
from wxauth.core.logs import configure_logging, get_logger
from wxauth.core.sealing import CannotOpen
from wxauth.core.settings import InvalidSettings, Settings, load_settings, unknown_names
from wxauth.core.timekeeping import correct
from wxauth.errors import StorageUnavailable
from wxauth.service.app import create_app
from wxauth.service.build import build_services
from wxauth.service.metrics import remove_what_is_shared, shared_by_workers
from wxauth.web.http_protocol import HttpProtocol

DRAIN_SECONDS: Final = 10
KEEP_ALIVE_SECONDS: Final = 75
"""Longer than the usual proxy keeps its own idle connections, so that it is never the one to be surprised."""
WORKER_PATIENCE: Final = 10
"""Seconds in which a worker must show that it lives; starting takes most of them on a busy machine."""

GC_THRESHOLDS: Final = (10_000, 20, 20)
"""Requests leave few cycles behind; Python's own 700 would have it look for them at every few requests."""

_BACKLOG: Final = 2048

log = get_logger()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises: InvalidSettings, where there is no listening at that host and port, the stored keys do not
        open with this `WXAUTH_SECRET_KEY`, or several workers have no place to share their metrics.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    signal.signal(signal.SIGTERM, leave)
    for line in unknown_names():
        log.warning("unknown_setting", reason=line)
    asyncio.run(check_secret_key(settings))
    try:
        listener = listen(settings.host, settings.port)
    except OSError as exc:
        raise InvalidSettings([f"WXAUTH_HOST and WXAUTH_PORT: cannot listen there: {exc.strerror}"]) from None
    config = uvicorn.Config(
        "wxauth.service.server:worker_app", factory=True, workers=settings.workers, **uvicorn_options(settings)
    )
    try:
        if settings.workers == 1:
            uvicorn.Server(config).run([listener])
        else:
            with shared_by_workers():
                _Workers(config, [listener]).run()
    except KeyboardInterrupt:
        return
    except SystemExit as end:
        sys.exit(1 if end.code else 0)


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; whoever connects before there is anyone to answer waits. Raises: OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if listener.family == socket.AF_INET6:
            # Else IPv4 clients come too, in a form of address that no trusted proxy matches.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """How uvicorn is to run, in production and in development."""
    return {
        "http": HttpProtocol,
        "ws": "none",
        "loop": "auto" if os.name == "nt" else "uvloop",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": True,
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
        "timeout_worker_healthcheck": WORKER_PATIENCE,
        "backlog": _BACKLOG,
    }


def worker_app() -> ASGIApp:
    """The app of one worker process."""
    settings = load_settings(Settings)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    app = create_app(build_services(settings))
    gc.collect()
    gc.freeze()  # what is there now stays; the collector need not look at it again
    gc.set_threshold(*GC_THRESHOLDS)
    return app


def leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Signal handler. uvicorn raises SIGTERM again when it has drained; a stop that was asked for is no failure."""
    raise SystemExit(0)


async def check_secret_key(settings: Settings) -> None:
    """Whether what is stored opens; says nothing where the database does not answer yet. Raises: InvalidSettings."""
    services = build_services(settings)
    try:
        if isinstance(services.clock, DatabaseClock):
            await correct(services.clock, services.database)  # the first key is made here, and dated
        await services.keys.refresh()
        await services.apps.refresh()
        if services.keys.unopened or services.apps.unopened:
            raise CannotOpen("some signing keys, or secrets of apps, do not open")
    except DatabaseUrlRefused as exc:
        raise InvalidSettings([f"WXAUTH_DATABASE_URL: wants what PostgreSQL knows: {reason_of(exc)}"]) from None
    except StorageUnavailable as exc:
        log.warning("database_does_not_answer", reason=reason_of(exc), consequence="not ready until it does")
    except CannotOpen:
        raise InvalidSettings(
            [
                "WXAUTH_SECRET_KEY: wants the key that sealed what is stored; while rotating it, "
                "put the former one into WXAUTH_SECRET_KEY_PREVIOUS"
            ]
        ) from None
    finally:
        await services.aclose()


class _Workers(Multiprocess):
    def run(self) -> None:
        super().run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in self.processes):
            sys.exit(STARTUP_FAILURE)

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()  # or it would let people in to wait for nobody while the workers drain
        super().terminate_all()


def _end_with(parent: int) -> None:
    # A worker whose parent was killed would serve on, unseen, on a port that the next start needs.
    wait([parent])
    remove_what_is_shared()
    os.kill(os.getpid(), signal.SIGTERM)
