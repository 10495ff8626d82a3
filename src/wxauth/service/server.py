"""The command `wxauth serve`: uvicorn's server or its supervisor of workers, with options that suit the app."""

import asyncio
import errno
import os
import pkgutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from wxauth.core.logs import configure_logging, get_logger
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings.loading import load_settings, setting_faults
from wxauth.settings.settings import PREFIX, InvalidSettings, Settings
from wxauth.terminal import os_reason

APP: Final = "wxauth.asgi:create_app"
"""The import path of the app.

With several workers, uvicorn gets this path instead of the app, because the parent process does not import the app.
"""
DRAIN_SECONDS: Final = 10
"""The time, in seconds, that running requests may take after the port is closed."""
SILENT_SECONDS: Final = 15
"""The time, in seconds, after which a worker that does not respond to the supervisor is replaced."""
START_SECONDS: Final = 60
"""The time, in seconds, that a worker may take to start during a reload. A busy machine may need that long."""
COUNTS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable of prometheus_client that names the folder in which several workers store their counts."""
COUNTS_FOLDER_PREFIX: Final = "wxauth-metrics-"
"""The prefix of the name of the folder that `wxauth serve` creates for the counts of its workers."""
ENDING_FILE: Final = "ending"
"""The name of a file that the supervisor creates in the folder with the counts when all workers must end.

If a worker ends while the file is missing, the worker is being replaced, so the service stays ready.
"""

_KEEP_ALIVE_SECONDS: Final = 75
"""The time, in seconds, after which an idle connection is closed.

Common proxies close their idle connections earlier. Therefore, a proxy does not send a request on a connection that the
server is just closing.
"""
_BACKLOG: Final = 2048
"""The maximum number of connections that wait to be accepted. It is uvicorn's default."""
_SET_AT_START: Final = ("host", "port", "workers")
"""The settings that a reload cannot change."""
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the only writable place in some containers

log = get_logger()


class Server(uvicorn.Server):
    """A server that also serves the clients that have connected just before it closes the port.

    uvicorn's server resets the connections that it has not accepted yet. If the service has several workers, each of
    them runs uvicorn's server, not this one. The workers share the socket, so connections are reset only when all
    workers end.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept waiting connections before uvicorn's own shutdown, which would reset them."""
        loop = asyncio.get_running_loop()
        listeners = sockets or []
        waiting = [connection for listener in listeners for connection in _accepted(listener)]
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        # uvicorn's shutdown ends only the connections that uvicorn knows. If uvloop has just accepted a connection,
        # uvicorn does not know it until the next round of the event loop. Without a wait for this round, such a
        # connection would stay open until `DRAIN_SECONDS` are over.
        await asyncio.sleep(0)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.BaseProtocol:
        """Create the protocol of a connection, as uvicorn's server does."""
        options = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        return cast("type[asyncio.BaseProtocol]", self.config.http_protocol_class)(**options)


class Supervisor(Multiprocess):
    """A supervisor of workers that checks the settings before a reload.

    SIGTERM and SIGINT stop the supervisor even while it waits for a worker.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], settings: Settings) -> None:
        super().__init__(config, sockets)
        self._settings = settings
        self._signalled: set[Process] = set()
        """The workers to which this supervisor has sent a signal to end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)

    def handle_hup(self) -> None:
        """Replace the workers after SIGHUP, and log which settings have changed.

        If the new settings are wrong, all workers continue with the old settings.
        """
        try:
            new = load_settings(Settings)
            # If a name in `.env` is misspelled, the reload would reset its setting to the default. The environment does
            # not change while the process runs, so its names are not checked again.
            faults = setting_faults({})
            if faults:
                raise InvalidSettings(faults)
        except InvalidSettings as exc:
            log.error("reload_refused", reason=exc.text, consequence="the workers go on as they are")
            return
        self._log_changes(new)
        self._settings = new
        old_workers = set(self.processes)
        # uvicorn has one time limit for workers that start and for workers that do not respond. A start takes longer.
        self.config.timeout_worker_healthcheck = START_SECONDS
        super().handle_hup()
        self.config.timeout_worker_healthcheck = SILENT_SECONDS
        # uvicorn replaces the workers one by one, and stops at the first new worker that does not start.
        if not self.should_exit.is_set() and not old_workers.isdisjoint(self.processes):
            log.error("reload_failed", reason="a worker did not start", consequence="the others go on as they are")

    def _log_changes(self, new: Settings) -> None:
        """Log which settings have changed.

        The log names only settings that the operator has set, because derived values change only together with them.
        """
        set_names = self._settings.model_fields_set | new.model_fields_set
        changed = [
            name
            for name in Settings.model_fields
            if name in set_names and getattr(new, name) != getattr(self._settings, name)
        ]
        log.info(
            "settings_read",
            changed=[PREFIX + name.upper() for name in changed],
            needs_restart=[PREFIX + name.upper() for name in changed if name in _SET_AT_START],
        )

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have ended or do not respond, and log their ends.

        If a worker did not start, uvicorn's method, which this one calls, stops the service instead. uvicorn calls this
        method twice a second.
        """
        before = list(self.processes)
        super().keep_subprocess_alive()
        for process in before:
            if process.exitcode is not None and not self.should_exit.is_set():
                log.warning("worker_ended", pid=process.pid, status=process.exitcode)

    def terminate_all(self) -> None:
        """Tell the workers to end. uvicorn calls this method when it stops."""
        self._end_workers()

    def _leave(self, _number: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM or SIGINT. A second signal means that the operator does not want to wait."""
        is_second_signal = self.should_exit.is_set()
        self.should_exit.set()
        self._end_workers(is_urgent=is_second_signal)

    def _end_workers(self, *, is_urgent: bool = False) -> None:
        """Create `ENDING_FILE`, close the sockets, and send SIGTERM to each worker that has not been told to end.

        `is_urgent` means that the operator does not want to wait. In this case, send SIGINT to every worker instead.
        After SIGTERM, SIGINT makes a worker's server end without waiting for its requests.
        """
        Path(os.environ[COUNTS_VARIABLE], ENDING_FILE).touch()
        # If the parent kept the sockets open, clients could still connect, and would never get a response.
        for listener in self.sockets:
            listener.close()
        for process in self.processes:
            if process.pid is None or process.exitcode is not None:
                continue
            # uvicorn closes the connection to a worker that it has told to end, for example during a reload.
            is_ending = process in self._signalled or process.parent_conn.closed
            if is_urgent or not is_ending:
                self._signalled.add(process)
                os.kill(process.pid, signal.SIGINT if is_urgent else signal.SIGTERM)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    With several workers, SIGHUP replaces them with workers that have new settings. With one process, SIGHUP only logs
    that the service must be restarted instead.

    Raises: InvalidSettings, if the host and port are not available, or if the temporary folder that several workers
        need cannot be created; SystemExit, if the app or a worker does not start.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as exc:
        raise InvalidSettings([_why_not_listening(exc, settings)]) from None
    if settings.workers > 1:
        _serve_by_workers(settings, listener)
        return
    signal.signal(signal.SIGHUP, _ignore_reload)
    # `wxauth.__main__` has blocked SIGHUP until a handler exists.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        app = pkgutil.resolve_name(APP)()
        # Without a number of workers, uvicorn reads WEB_CONCURRENCY.
        config = uvicorn.Config(app, workers=1, **uvicorn_options())
        Server(config).run([listener])
    except SystemExit as exc:
        # uvicorn raises SystemExit if the app did not start. The app has reported the reason. uvicorn's own status is
        # only for a supervisor, so the command ends with 1, as after any other failure.
        sys.exit(1 if exc.code else 0)


def _ignore_reload(_number: int, _frame: FrameType | None) -> None:
    """Handle SIGHUP in a service with one process, which cannot replace itself."""
    fields = {"reason": "one process cannot replace itself", "what_to_do": "restart the service"}
    # A thread logs the line, because the signal might have interrupted another log call.
    Thread(target=log.warning, args=["reload_ignored"], kwargs=fields).start()


def _serve_by_workers(settings: Settings, listener: socket.socket) -> None:
    """Serve with several workers, which share the counts of their metrics in a temporary folder.

    Raises: InvalidSettings, if the folder cannot be created; SystemExit, if a worker does not start.
    """
    folder = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    try:
        shared = tempfile.TemporaryDirectory(prefix=COUNTS_FOLDER_PREFIX, dir=folder, ignore_cleanup_errors=True)
    except OSError as exc:
        text = _("WXAUTH_WORKERS: must be 1, because there is no temporary folder: {reason}", reason=os_reason(exc))
        raise InvalidSettings([text]) from None
    with shared as counts_folder:
        os.environ[COUNTS_VARIABLE] = counts_folder
        config = uvicorn.Config(APP, factory=True, workers=settings.workers, **uvicorn_options())
        supervisor = Supervisor(config, [listener], settings)
        # `wxauth.__main__` has blocked SIGHUP until a handler exists. The supervisor has just set one.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(1)


def _why_not_listening(exc: OSError, settings: Settings) -> Text:
    """Return a text that tells the operator why the service cannot listen, and what to change."""
    address = f"{settings.host}:{settings.port}"
    if exc.errno == errno.EADDRINUSE:
        return _("{address} is already in use. Choose another WXAUTH_PORT", address=address)
    return _(
        "WXAUTH_HOST and WXAUTH_PORT: cannot listen on {address}: {reason}", address=address, reason=os_reason(exc)
    )


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept and yield the connections that wait at a listening socket.

    The event loop has made the listener non-blocking, so `accept` does not wait for another client.
    """
    with suppress(BlockingIOError):  # no more clients are waiting
        while True:
            connection, _address = listener.accept()
            connection.setblocking(False)
            yield connection


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    A socket for `::` also accepts IPv4. If the machine does not support this, the socket accepts only IPv4. Clients
    that connect before the service has started wait until the service serves them.

    Raises: OSError, if the host and port are not available.
    """
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 - the operator has chosen all addresses
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
    """Return the options of uvicorn that production and development share."""
    return {
        "http": "wxauth.web.http_protocol:HttpProtocol",
        "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
        # With pipelining, the end of a response starts the next request. Without this option, the log lines of the next
        # request would contain the ids of the previous request.
        "reset_contextvars": True,
        "ws": "none",
        "loop": "uvloop",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,  # the app reads forwarded addresses itself
        "timeout_graceful_shutdown": DRAIN_SECONDS,
        "timeout_worker_healthcheck": SILENT_SECONDS,
        "backlog": _BACKLOG,
    }
