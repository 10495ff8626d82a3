"""The command `wxauth serve`: uvicorn's server or its supervisor of workers, with options that suit the app."""

import asyncio
import errno
import os
import pkgutil
import signal
import socket
import struct
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from wxauth.core.logs import configure_logging, get_logger
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.service.starting import ending_at_once, report_failed_start
from wxauth.settings.loading import load_settings, setting_faults
from wxauth.settings.settings import PREFIX, InvalidSettings, Settings
from wxauth.terminal import os_reason

APP: Final = "wxauth.asgi:create_app"  # with several workers, the parent process does not import the app
DRAIN_SECONDS: Final = 10  # for running requests after the port is closed
SILENT_SECONDS: Final = 15  # until a silent worker is replaced; on a busy machine, an exit alone can silence it for 8 s
# After this time, a worker is killed. A regular end takes no longer, and systemd and containers wait 30 s for the whole
# service.
END_SECONDS: Final = 25
COUNTS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"  # in which several workers store their counts
COUNTS_FOLDER_PREFIX: Final = "wxauth-metrics-"
# The supervisor creates this file in the folder with the counts when all workers must end. If a worker ends while the
# file is missing, the worker is being replaced, so the service stays ready.
ENDING_FILE: Final = "ending"

_OUT_OF_FILES_PAUSE_SECONDS: Final = 60.0
_SIGNAL_PAUSE_SECONDS: Final = 0.2
_START_SECONDS: Final = 60  # during a reload; a busy machine may need that long
# Common proxies close idle connections earlier, so a proxy sends no request on a connection that the server is closing.
_KEEP_ALIVE_SECONDS: Final = 75
_BACKLOG: Final = 2048  # uvicorn's default
# Until what a client has sent to open a connection has arrived. Meanwhile, other clients have to repeat their attempt,
# which takes them a second.
_HANDSHAKE_SECONDS: Final = 0.01
_SO_ATTACH_FILTER: Final = 26  # of Linux
# A program for the kernel, which runs it for each segment that arrives, from the TCP header on.
_REFUSING_CONNECTIONS: Final = b"".join(
    struct.pack("=HBBI", *step)
    for step in (
        (0x30, 0, 0, 13),  # load the byte with the flags
        (0x54, 0, 0, 0b10010),  # of them, keep ACK and SYN
        (0x15, 0, 1, 0b00010),  # without ACK, SYN asks for a connection
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, 0xFFFF),  # accept everything else
    )
)
_SET_AT_START: Final = ("host", "port", "workers")  # a reload cannot change these
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the only writable place in some containers

log = get_logger()


class Config(uvicorn.Config):
    def load(self) -> None:
        """Import the app. A signal during the imports, which take 10 s on a busy machine, ends the process."""
        with ending_at_once():
            super().load()


class Server(uvicorn.Server):
    """A server that opens its port when it can answer, and serves all who have connected before it closes the port.

    Args:
        holders: Both ends of a pipe. Each worker keeps them open as long as it keeps the port open.
    """

    def __init__(self, config: uvicorn.Config, holders: tuple[Connection, Connection] | None = None) -> None:
        super().__init__(config)
        self._holders = holders
        self._tells_of_files_at = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, and then open the port, as uvicorn's own method does with sockets."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        self.servers: list[asyncio.Server] = []
        for listener in sockets or []:
            try:
                listener.listen(_BACKLOG)  # uvloop would report no error
            except OSError as exc:  # another program has bound the same port, and was the first to open it
                host, port, *_rest = listener.getsockname()
                report_failed_start(_why_not_listening(exc, host, port))
                sys.exit(STARTUP_FAILURE)
            loop = asyncio.get_running_loop()
            self.servers.append(await loop.create_server(self._protocol, sock=listener, backlog=_BACKLOG))
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            self._watch_files()
        return await super().on_tick(counter)

    def _watch_files(self) -> None:
        # uvloop resets connections for which no file descriptor is left, and reports nothing.
        try:
            os.close(os.dup(0))
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE) and monotonic() >= self._tells_of_files_at:
                self._tells_of_files_at = monotonic() + _OUT_OF_FILES_PAUSE_SECONDS
                log.error("out_of_files", reason=os_reason(exc), consequence="new connections are reset")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept waiting connections before uvicorn's own shutdown, which would reset them."""
        loop = asyncio.get_running_loop()
        listeners = sockets or []
        if self._is_last():
            for listener in listeners:
                _refuse_connections(listener)
            await asyncio.sleep(_HANDSHAKE_SECONDS)
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

    def _is_last(self) -> bool:
        # All workers share one queue of waiting connections, which the kernel resets when the last of them closes it.
        if self._holders is None:
            return True
        receiver, sender = self._holders
        sender.close()
        return receiver.poll()  # the end of the pipe, because no other process can send

    def _protocol(self) -> asyncio.BaseProtocol:
        options = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        return cast("type[asyncio.BaseProtocol]", self.config.http_protocol_class)(**options)


class Worker(Process):
    def __init__(
        self, config: uvicorn.Config, sockets: list[socket.socket], holders: tuple[Connection, Connection]
    ) -> None:
        super().__init__(config, sockets)
        self._holders = holders

    @property
    def server(self) -> Server:
        """The server, which uvicorn runs in the worker's own process."""
        if self._server is None:
            self._server = Server(self.config, self._holders)
        return cast(Server, self._server)


class Supervisor(Multiprocess):
    """Runs workers until a signal, which may come at any moment. Before a reload, it checks the settings."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], settings: Settings) -> None:
        super().__init__(config, sockets)
        self._holders = Pipe(duplex=False)
        self._settings_in_use = [settings]  # after a failed reload, workers can differ
        self._signals: SimpleQueue[int | None] = SimpleQueue()  # None if uvicorn stops without a signal
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_signal)

    def run(self) -> None:
        """Run the workers until SIGTERM, SIGINT, or a worker that can't start."""
        Thread(target=self._end_workers, daemon=True).start()
        try:
            super().run()
        except BaseException:  # for example, the system can't create another process
            # Otherwise, Python would wait forever for the workers.
            self.terminate_all()
            self.join_all()
            raise
        finally:
            # While Python shuts down, a second signal would otherwise end the process with another exit status.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)

    def init_processes(self) -> None:
        for _worker in range(self.processes_num):
            self._start_worker()

    def handle_ttin(self) -> None:
        self.processes_num += 1
        self._start_worker()

    def _start_worker(self) -> Worker:
        worker = Worker(self.config, self.sockets, self._holders)
        worker.start()
        self.processes.append(worker)
        return worker

    def handle_hup(self) -> None:
        """Replace the workers after SIGHUP, unless the new settings are wrong."""
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
        old_workers = set(self.processes)
        super().handle_hup()
        replaced = old_workers.difference(self.processes)
        if replaced == old_workers:
            self._settings_in_use = [new]
        elif not self.should_exit.is_set():
            if replaced:
                self._settings_in_use.append(new)
            log.error("reload_failed", reason="a worker did not start", consequence="the others go on as they are")

    def _log_changes(self, new: Settings) -> None:
        # Only settings that the operator has set are named, because derived values change only together with them.
        changed = [
            name
            for name in Settings.model_fields
            if any(
                name in old.model_fields_set | new.model_fields_set and getattr(new, name) != getattr(old, name)
                for old in self._settings_in_use
            )
        ]
        log.info(
            "settings_read",
            changed=[PREFIX + name.upper() for name in changed],
            needs_restart=[PREFIX + name.upper() for name in changed if name in _SET_AT_START],
        )

    def restart_all(self) -> None:
        """Replace the workers one by one, and stop at the first new worker that does not start.

        uvicorn's own method keeps the new worker from signals until the old one has ended. It also allows a start only
        the time in which a worker must respond to a ping, although a start takes longer.
        """
        for old in list(self.processes):
            if self.should_exit.is_set():
                return
            new = self._start_worker()
            if not new.wait_until_ready(_START_SECONDS, self.should_exit):
                if not self.should_exit.is_set():
                    new.kill()
                    new.join()
                    self.processes.remove(new)
                return
            old.terminate()
            deadline = monotonic() + END_SECONDS
            while old.exitcode is None and not self.should_exit.is_set():
                old.process.join(_SIGNAL_PAUSE_SECONDS)
                if monotonic() > deadline:
                    old.process.kill()
            if not self.should_exit.is_set():
                self.processes.remove(old)

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have ended or do not respond, and log their ends. uvicorn calls this twice a second."""
        for worker in list(self.processes):
            # With the worker's end open in the parent, too, `is_alive` would wait `SILENT_SECONDS` for a worker that
            # ends while it is asked whether it responds.
            worker.child_conn.close()
            if self.should_exit.is_set():
                return
            if worker.is_alive(SILENT_SECONDS):
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:  # its successor would fail as well
                self.should_exit.set()
            if self.should_exit.is_set():
                return
            log.warning("worker_ended", pid=worker.pid, status=worker.exitcode)
            self.processes.remove(worker)
            self._start_worker()

    def terminate_all(self) -> None:
        """Close the sockets, and tell the workers to end. uvicorn calls this method when it stops."""
        # If the parent kept the sockets open, clients could still connect, and would never get a response. They must
        # not be closed earlier, because a worker that is being created needs them.
        for listener in self.sockets:
            listener.close()
        for end in self._holders:
            end.close()
        self._signals.put(None)

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        # `should_exit.set()` would wait forever if the signal has interrupted code that holds its lock. `put` can
        # interrupt anything.
        self._signals.put(number)

    def _end_workers(self) -> None:
        """Repeat SIGTERM, and send SIGKILL after `END_SECONDS` or a second signal of an impatient operator.

        A worker loses a SIGTERM that arrives between two handlers, and a worker that is just being created is not in
        `processes` yet.
        """
        self._signals.get()
        with suppress(OSError):  # the operator has deleted the folder, or the disk is full
            Path(os.environ[COUNTS_VARIABLE], ENDING_FILE).touch()
        self.should_exit.set()
        deadline = monotonic() + END_SECONDS
        while True:
            for worker in [each.process for each in self.processes]:
                if monotonic() < deadline:
                    worker.terminate()
                else:
                    worker.kill()
            with suppress(Empty):
                if self._signals.get(timeout=_SIGNAL_PAUSE_SECONDS) is not None:
                    deadline = monotonic()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. With several workers, SIGHUP replaces them with workers that have new settings.

    Raises: InvalidSettings, if the host and port are not available, or if the temporary folder that several workers
        need cannot be created; SystemExit, if the app or a worker does not start.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    try:
        listener = bound(settings.host, settings.port)
    except OSError as exc:
        raise InvalidSettings([_why_not_listening(exc, settings.host, settings.port)]) from None
    if settings.workers > 1:
        _serve_by_workers(settings, listener)
        return
    _after_each_sighup(_ignore_reload)
    try:
        app = pkgutil.resolve_name(APP)()
        # Without a number of workers, uvicorn reads WEB_CONCURRENCY.
        config = Config(app, workers=1, **uvicorn_options())
        Server(config).run([listener])
    except SystemExit as exc:
        # uvicorn raises SystemExit if the app did not start. The app has reported the reason. uvicorn's own status is
        # only for a supervisor, so the command ends with 1, as after any other failure.
        sys.exit(1 if exc.code else 0)


def _after_each_sighup(act: Callable[[], object]) -> None:
    """Call the function in a thread after each SIGHUP.

    The signal stays blocked everywhere else, and in the workers, which inherit this. Therefore, it never arrives where
    no handler is installed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGHUP})
            act()

    Thread(target=wait, daemon=True).start()


def _ignore_reload() -> None:
    log.warning("reload_ignored", reason="one process cannot replace itself", what_to_do="restart the service")


def _serve_by_workers(settings: Settings, listener: socket.socket) -> None:
    folder = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    try:
        shared = tempfile.TemporaryDirectory(prefix=COUNTS_FOLDER_PREFIX, dir=folder, ignore_cleanup_errors=True)
    except OSError as exc:
        text = _("WXAUTH_WORKERS: must be 1, because there is no temporary folder: {reason}", reason=os_reason(exc))
        raise InvalidSettings([text]) from None
    with shared as counts_folder:
        os.environ[COUNTS_VARIABLE] = counts_folder
        config = Config(APP, factory=True, workers=settings.workers, **uvicorn_options())
        supervisor = Supervisor(config, [listener], settings)
        _after_each_sighup(partial(supervisor.signal_queue.append, signal.SIGHUP))
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(1)


def _why_not_listening(exc: OSError, host: str, port: int) -> Text:
    address = f"{host}:{port}"
    if exc.errno == errno.EADDRINUSE:
        return _("{address} is already in use. Choose another WXAUTH_PORT", address=address)
    return _(
        "WXAUTH_HOST and WXAUTH_PORT: cannot listen on {address}: {reason}", address=address, reason=os_reason(exc)
    )


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    # The event loop has made the listener non-blocking, so `accept` fails if no more clients are waiting. It also fails
    # if the process has no file descriptor left.
    with suppress(OSError):
        while True:
            connection, _address = listener.accept()
            connection.setblocking(False)
            yield connection


def _refuse_connections(listener: socket.socket) -> None:
    """Let clients repeat their attempts to connect. The port is closed by then, so that a proxy asks another replica.

    Without this, a connection that is made between the last `accept` and the end of the port would be reset.
    """
    if sys.platform == "linux":
        program = array("B", _REFUSING_CONNECTIONS)
        address, length = program.buffer_info()
        with suppress(OSError):  # a sandbox such as gVisor does not run such programs
            option = struct.pack("HL", length // 8, address)
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that uvicorn opens when the service can answer. Until then, clients are refused.

    A proxy then asks another replica at once, instead of waiting for this one.

    A socket for `::` also accepts IPv4. If the machine does not support this, the socket accepts only IPv4.
    """
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 - the operator has chosen all addresses
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is open at once, so that no other program can take the port."""
    listener = bound(host, port)
    try:
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
    }
