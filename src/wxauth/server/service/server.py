"""Runs the service in production: workers, uvloop, and a graceful end."""

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from types import FrameType
from typing import Any, Final, NoReturn

import uvicorn

from wxauth.errors import StorageUnavailable
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.server.apps.registry import Apps
from wxauth.server.checks.sealed import ensure_opens
from wxauth.server.clients.clients import clashing_clients
from wxauth.server.core.clock import DatabaseClock, correct_clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import configure_logging, get_logger
from wxauth.server.core.outages import DatabaseUrlRefused, outage_log, reason_of
from wxauth.server.core.sealing import WRONG_SECRET_KEY, CannotOpen, Sealer
from wxauth.server.core.services import Services
from wxauth.server.core.settings import PREFIX, InvalidSettings, Settings, load_settings, unknown_names
from wxauth.server.core.terminal import os_reason
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.service.app import create_app
from wxauth.server.service.build import build_services, import_tracing
from wxauth.server.service.probes import Readiness, is_migrated
from wxauth.server.service.shared_counts import count_as_a_worker, delete_shared_folder, shared_by_workers
from wxauth.server.service.workers import SUPERSEDED, Heartbeat, Work, Workers
from wxauth.server.web.http_protocol import HttpProtocol
from wxauth.server.web.http_server import Server

PROXY_NOTICE_SECONDS: Final = 2.0
"""How long after SIGTERM a proxy may still send requests, because it has not noticed the end yet."""
DRAIN_SECONDS: Final = 10
"""How long requests under way may take after that."""

GC_THRESHOLDS: Final = (50_000, 20, 20)
"""Requests leave few reference cycles.

200 logins under way hold 27,000 objects: with a lower threshold, the collector would traverse them and find nothing.
"""

_BACKLOG: Final = 2048
_SET_AT_START: Final = ("host", "port", "workers")
"""Settings that a reload cannot change."""

log = get_logger()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. SIGHUP reloads the settings.

    Raises: InvalidSettings, if

    - the host and port cannot be listened on
    - `WXAUTH_SECRET_KEY` does not decrypt the stored keys
    - the audience or an app has the name of an OAuth client
    - several workers have no folder for their shared metrics
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    outage_log.share()  # all workers together log an outage once
    _prepare(settings)  # even if the database could not be checked: then the service waits for it
    try:
        listener = listen(settings.host, settings.port)
    except OSError as exc:
        raise InvalidSettings([_why_not(exc, settings)]) from None
    if serve_by_workers(settings, listener):
        sys.exit(1)


def _why_not(exc: OSError, settings: Settings) -> Text:
    address = f"{settings.host}:{settings.port}"
    if exc.errno == errno.EADDRINUSE:
        return _("{address} is in use already: set another WXAUTH_PORT", address=address)
    return _(
        "WXAUTH_HOST and WXAUTH_PORT: cannot listen on {address}: {reason}", address=address, reason=os_reason(exc)
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; at `::`, for IPv4 too. Clients may connect before the service has started, and wait.

    Raises: OSError.
    """
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 - asked for
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def uvicorn_options() -> dict[str, Any]:
    """The options of uvicorn, in production and development."""
    return {
        "http": HttpProtocol,
        "timeout_keep_alive": 75,  # common proxies close their idle connections earlier
        "reset_contextvars": True,  # a pipelined request is begun by the answer before, whose ids its log would have
        "ws": "none",
        "loop": "uvloop",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,  # the app reads forwarded addresses itself
        "timeout_graceful_shutdown": DRAIN_SECONDS,
        "backlog": _BACKLOG,
    }


def make_server(services: Services) -> Server:
    """The whole service, not yet running."""
    config = uvicorn.Config(create_app(services), **uvicorn_options())
    gc.collect()
    gc.freeze()  # objects made so far live to the end, so the collector need not traverse them again
    gc.set_threshold(*GC_THRESHOLDS)
    return Server(config, learning=PROXY_NOTICE_SECONDS, on_leaving=services[Readiness].leave)


def serve_by_workers(settings: Settings, listener: socket.socket) -> int:
    """Serve in worker processes until SIGTERM or SIGINT. SIGHUP replaces them by workers with the reloaded settings.

    Returns the exit status.
    """
    for module in ("uvicorn.loops.uvloop", "uvicorn.lifespan.on", "fastapi.telemetry._runtime"):
        import_module(module)  # here, so that the workers share their 3 MB

    def reload_work() -> Work:
        nonlocal settings
        new = load_settings(Settings)
        if misspelt := unknown_names({}):  # in `.env`; the default would replace the former value
            raise InvalidSettings(misspelt)
        if not _prepare(new):
            raise InvalidSettings([_("WXAUTH_DATABASE_URL: must name a reachable, migrated database")])
        given = settings.model_fields_set | new.model_fields_set  # other values follow from those
        changed = [
            name for name in Settings.model_fields if name in given and getattr(new, name) != getattr(settings, name)
        ]
        log.info(
            "settings_read",
            changed=[PREFIX + name.upper() for name in changed],
            needs_restart=[PREFIX + name.upper() for name in changed if name in _SET_AT_START],
        )
        settings = new
        return _work(settings, listener)

    with ExitStack() as stack:
        if settings.workers > 1:
            stack.enter_context(shared_by_workers())
            for number in (signal.SIGTERM, signal.SIGINT):  # until `Workers` handle them
                signal.signal(number, _delete_folder_and_end)
        return Workers(settings.workers, listener, work=_work(settings, listener), renew=reload_work).run()


def _prepare(settings: Settings) -> bool:
    """Check new settings before worker processes are forked.

    Returns False if the database could not be reached for its checks. Raises: InvalidSettings.
    """
    for line in unknown_names():
        log.warning("unknown_setting", reason=line)
    import_tracing(settings)  # before the fork, so that the workers share its memory
    return asyncio.run(check_stored_state(settings))


def _work(settings: Settings, listener: socket.socket) -> Work:
    """The work of a worker.

    What it serves is built here, before the fork, so that the workers share its memory. What must be a process's own,
    such as an id by which it stores something, is made when it is first needed.
    """
    if settings.otlp_url is not None:  # traces have a thread, which does not survive the fork
        return lambda heartbeat: serve_as_worker(settings, build_services(settings), None, listener, heartbeat)
    services = build_services(settings)
    return partial(serve_as_worker, settings, services, make_server(services), listener)


def serve_as_worker(
    settings: Settings, services: Services, server: Server | None, listener: socket.socket, heartbeat: Heartbeat
) -> None:
    """Serve as one worker."""
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    count_as_a_worker()
    server = server or make_server(services)
    signal.signal(SUPERSEDED, lambda _number, _frame: server.hand_over())

    async def serve() -> None:
        reporting = asyncio.create_task(
            heartbeat.report(is_ready=lambda: server.started and services[KeyRing].is_ready)
        )
        reporting.add_done_callback(_leave_without_parent)
        try:
            await server.serve([listener])
        finally:
            reporting.cancel()

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve())


async def check_stored_state(settings: Settings) -> bool:
    """Check that stored secrets can be decrypted, and that no site is named like the audience or an app.

    This also makes the first keys, and rotates those that are due. False if it could not be checked, because the
    database does not answer or has no schema.

    Raises: InvalidSettings.
    """
    database = Database(settings.database_url.get_secret_value())
    try:
        if not await is_migrated(database):
            return False
        await _check_secret_key(settings, database)
        await _check_client_names(settings, database)
    except DatabaseUrlRefused as exc:
        raise InvalidSettings(
            [_("WXAUTH_DATABASE_URL: must be a valid PostgreSQL URL: {reason}", reason=reason_of(exc))]
        ) from None
    except StorageUnavailable as exc:
        outage_log.note(exc)
        return False
    finally:
        await database.aclose()
    return True


async def _check_secret_key(settings: Settings, database: Database) -> None:
    clock = DatabaseClock()
    sealer = Sealer(settings.secret_keys)
    keys = KeyRing(settings=settings, database=database, sealer=sealer, clock=clock)
    apps = Apps(settings=settings, database=database, sealer=sealer)
    await correct_clock(clock, database)  # first, because `refresh` may create and date the first key
    try:
        await ensure_opens(database, sealer, now=clock())
        await keys.refresh()
    except CannotOpen:
        raise InvalidSettings([WRONG_SECRET_KEY]) from None
    if keys.unopened:
        raise InvalidSettings([WRONG_SECRET_KEY])
    await apps.refresh()  # logs which cannot be opened; the others serve


async def _check_client_names(settings: Settings, database: Database) -> None:
    if clashing := await clashing_clients(database, settings):
        text = _(
            "WXAUTH_AUDIENCE, WXAUTH_APPS: must not be the name of an OAuth client ({name}): its tokens would be taken "
            "for others; remove that client, then add it under another name",
            name=clashing[0],
        )
        raise InvalidSettings([text])


def _delete_folder_and_end(_signal: int, _frame: FrameType | None) -> NoReturn:
    delete_shared_folder()
    os._exit(0)


def _leave_without_parent(reporting: asyncio.Task[None]) -> None:
    # A worker whose parent was killed would otherwise continue unnoticed, on the port that the next start needs.
    if not reporting.cancelled():
        delete_shared_folder()
        os.kill(os.getpid(), signal.SIGTERM)
