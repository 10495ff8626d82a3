"""The log of events with fields, as JSON or for a terminal. Log lines contain ids and durations, but never a secret."""

import atexit
import logging
import os
import re
import sys
import traceback
from bisect import bisect_right
from collections.abc import Callable, Hashable, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, date, datetime
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO, Final, cast
from uuid import UUID

import structlog
from pydantic_core import from_json, to_json
from structlog.typing import FilteringBoundLogger

from wxauth.terminal import printable_json

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)  # None outside of requests
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)  # W3C Trace Context

_MAX_FRAMES: Final = 14  # the innermost ones
_MAX_MESSAGE_LENGTH: Final = 500
_MAX_LINE_SIZE: Final = 8192 - 1  # without the line end; Docker cuts lines at 16 KiB, and journald at 48 KiB
_MAX_MEMBERS: Final = 5  # of a list, so that nobody fills the log with short requests
_NEVER_CUT: Final = ("event", "level", "request_id", "code")
_MIN_CUT_LENGTH: Final = 128  # of a text, so that the event of a library can be cut, and no name of ours
_HEAD_SIZE: Final = 2048  # of a traceback
_TAIL_SIZE: Final = 4096
# The error messages of libraries may contain secrets: parameters of WeChat's URLs, tokens, or passwords in a DSN.
_SECRETS: Final = re.compile(
    r"(?i)(?P<name>(?:secret|session|aes)_?key|secret|js_?code|token|authorization|password"
    r"|(?<![a-z_])(?<!status )(?<!exit )code)"  # a login code, but not a status code or an exit code
    r"""(?P<separator>["']?\s*[=:]\s*(?:bearer\s+|basic\s+)?)(?:b?'[^']*'|b?"[^"]*"|[^\s&"',;)}]+)"""
    r"|wx[rc]_[\w-]+|whsec_[\w+/=-]+|eyJ[\w.-]+"  # tokens of sessions and of the console, secrets of webhooks, and JWTs
    r"|(?<=://)[^\s/@]+@"  # the user name and password in a URL
    r"|(?:(?<=/d/)|(?<=/v1/scans/)|(?<=/v1/authorize/))[\w-]{22}"  # in paths: QR codes' secrets, ids of login pages
    r"|(?<=/me/scans/)[\w-]{22}(?![\w-])"  # the secret of a QR code in place of an id (an id is longer)
)
# PostgreSQL and asyncpg quote a row or an argument after these phrases. The quotation may contain anything, so
# everything after the phrase is removed.
_QUOTED_VALUES: Final = re.compile(
    r"(?s)(DETAIL:|Failing row contains|\bKey \([^)]*\)=|invalid input (?:syntax|value|for query argument)[^:]*:).*"
)
_QUOTING_PHRASES: Final = ("DETAIL:", "Failing row contains", "Key (", "invalid input")
_MAX_NAMES_PER_DAY: Final = 1000
_MAX_SEARCHED_LENGTH: Final = 8192  # because the patterns take quadratic time for some texts
# The messages of this class of SQLSTATE codes quote values. `_QUOTED_VALUES` finds only their English phrases, and
# PostgreSQL may translate its messages.
_DATA_EXCEPTION: Final = "22"

LogEvent = MutableMapping[str, Any]
Render = Callable[[Any, str, LogEvent], bytes]  # structlog's last processor


def get_logger() -> FilteringBoundLogger:
    """Return a logger for events, used as `log.info("logged_in", user_id=...)`."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def address_field(ip: str | None, *, is_logged: bool) -> dict[str, Any]:
    """Return the field `ip` for the log line of a login or refresh, if the settings want addresses to be logged."""
    return {"ip": ip} if is_logged else {}


def configure_logging(*, level: str, log_format: str, stream: BinaryIO | None = None) -> None:
    """Write wxauth's events and the log lines of libraries to one stream, by default standard output.

    `level` applies to wxauth and uvicorn. Other libraries write nothing below a warning. `log_format` is `json`, or
    `console` for lines that people read in a terminal.
    """
    stream_of_bytes = stream or sys.stdout.buffer
    render = _to_json_line if log_format == "json" else console_line(colors=stream_of_bytes.isatty())
    output = _UnfailingStream(stream_of_bytes, render)
    if stream is None:
        atexit.register(output.discard)
    level_number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[_add_common_fields, render],
        wrapper_class=structlog.make_filtering_bound_logger(level_number),
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, output)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_redact_foreign, _add_common_fields],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda logger, name, event: render(logger, name, event).decode(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level_number, logging.WARNING), force=True)
    logging.getLogger("uvicorn").setLevel(level_number)
    # At INFO, httpx logs the URLs of its requests, and uvicorn the paths and queries of the requests that it receives.
    # At DEBUG, httpcore logs the header fields of responses. All of these may contain secrets, such as authorization
    # codes, but no URL of httpx contains WeChat's app secret (see `_Host.request` in `wechat/client.py`).
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The warnings of these libraries quote input from callers.
    for quoting in ("python_multipart", "opentelemetry"):
        logging.getLogger(quoting).setLevel(logging.ERROR)


def redact(text: str) -> str:
    """Mask what looks like a secret, or like a value that PostgreSQL has quoted, and cut off a very long text."""
    text = _QUOTED_VALUES.sub(r"\1 ***", text[:_MAX_SEARCHED_LENGTH])
    return _SECRETS.sub(_masked, text)


def _masked(secret: re.Match[str]) -> str:
    return "***" if secret["name"] is None else f"{secret['name']}{secret['separator']}***"


def message_of(exc: BaseException) -> str:
    """Return an exception's message without secrets, and without values from rows or arguments of statements."""
    # The message of SQLAlchemy's error quotes the driver's error, so the driver's error is used instead.
    exc = getattr(exc, "driver_exception", None) or exc
    sqlstate = str(getattr(exc, "sqlstate", None) or "")
    if sqlstate.startswith(_DATA_EXCEPTION):
        return f"SQLSTATE {sqlstate}; its message quotes a value"
    return redact(str(exc))[:_MAX_MESSAGE_LENGTH]


def lines_of(exc: BaseException) -> list[str]:
    """Describe an exception for a command's output, without values of variables, rows or arguments."""
    description = _description(exc, exc.__traceback__)
    cause = [f"cause: {description['cause']}"] if "cause" in description else []
    return [
        f"{description['error']}: {description['error_message']}",
        *cause,
        *(f"    {frame}" for frame in description["frames"]),
    ]


class OncePerDay:
    """Allows a log line once per name, UTC day and process.

    The number of names per day is limited, too, because clients choose the names.
    """

    def __init__(self) -> None:
        self._day: date | None = None
        self._names: set[Hashable] = set()

    def claim(self, name: Hashable, today: date) -> bool:
        """Return whether the line for this name may be written now. If so, count it as written."""
        if self._day != today:
            self._day = today
            self._names.clear()
        if name in self._names or len(self._names) >= _MAX_NAMES_PER_DAY:
            return False
        self._names.add(name)
        return True


def _to_json_line(_logger: object, _name: str, event: LogEvent) -> bytes:
    line = to_json(event, fallback=repr)
    escaped = printable_json(line)
    # Without a bracket, there is no list.
    return escaped if len(escaped) <= _MAX_LINE_SIZE and b"[" not in escaped else _cut(line)


def _json(value: object) -> bytes:
    return printable_json(to_json(value))


def _cut(line: bytes) -> bytes:
    """Cut the longest texts to the greatest length with which the line fits."""
    event = from_json(line)
    if "frames" in event:
        event["frames"] = _ends("\n".join(event["frames"])).split("\n")
    lengths = range(_MIN_CUT_LENGTH, _MAX_LINE_SIZE)
    fitting = bisect_right(lengths, _MAX_LINE_SIZE, key=lambda length: len(_json(_shortened(event, length))))
    if not fitting:  # the line consists of many short values
        return _json({name: event[name] for name in _NEVER_CUT if name in event})
    return _json(_shortened(event, lengths[fitting - 1]))


def _shortened(value: Any, length: int, members: int | None = _MAX_MEMBERS) -> Any:
    match value:
        case str() if len(value) > length:
            return f"{value[:length]}… ({len(value) - length} more)"
        case dict():
            return {
                name: _shortened(member, length, None if name == "frames" else _MAX_MEMBERS)
                for name, member in value.items()
            }
        case list():
            left_out = [] if members is None else value[members:]
            mark = [f"… ({len(left_out)} more)"] if left_out else []
            return [*(_shortened(member, length) for member in value[:members]), *mark]
    return value


def _ends(text: str) -> str:
    """Return the beginning and the end of a long traceback. The end consists of whole lines."""
    if len(text) <= _HEAD_SIZE + _TAIL_SIZE:
        return text
    head = text[:_HEAD_SIZE].rpartition("\n")[0] or text[:_HEAD_SIZE]
    tail = text[-_TAIL_SIZE:].partition("\n")[2]  # part of a line could begin within a secret
    left_out = text[len(head) : len(text) - len(tail)]
    if any(phrase in left_out for phrase in _QUOTING_PHRASES):  # the values might continue in the tail
        left_out, tail = text[len(head) :], ""
    return f"{head}\n… ({len(left_out)} more)\n{tail}".rstrip("\n")


def console_line(*, colors: bool) -> Render:
    """Return the renderer for a terminal, in whose lines control characters of clients are escaped."""
    render = structlog.dev.ConsoleRenderer(colors=colors)

    def line(logger: Any, name: str, event: LogEvent) -> bytes:
        frames: list[str] = event.pop("frames", [])
        event.update({field: _printable(str(value)) for field, value in event.items() if isinstance(value, UUID | str)})
        return "\n    ".join([render(logger, name, event), *frames]).encode()

    return line


def _printable(text: str) -> str:
    # Clients choose paths and names, which may contain control characters for the terminal.
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _add_common_fields(_logger: object, level: str, event: LogEvent) -> LogEvent:
    if (current := request_id.get()) is not None:
        event["request_id"] = current
    if (trace := trace_id.get()) is not None:
        event["trace_id"] = trace
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    event["level"] = level
    if "exc_info" in event:
        _describe_exception(event)
    return event


def _describe_exception(event: LogEvent) -> None:
    exc_info = event.pop("exc_info")
    if exc_info is True:
        exc_info = sys.exc_info()
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    if isinstance(exc_info, tuple) and exc_info[1] is not None:
        event.update(_description(exc_info[1], exc_info[2]))


def _description(exc: BaseException, tb: TracebackType | None) -> dict[str, Any]:
    description: dict[str, Any] = {
        "error": f"{type(exc).__module__}.{type(exc).__qualname__}",
        "error_message": message_of(exc),
        "frames": [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(tb)[-_MAX_FRAMES:]
        ],
    }
    cause = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if cause is not None:
        description["cause"] = f"{type(cause).__module__}.{type(cause).__qualname__}: {message_of(cause)}"
    return description


def _redact_foreign(_logger: object, _name: str, event: LogEvent) -> LogEvent:
    event["event"] = redact(_ends(str(event["event"])))
    return event


class _UnfailingStream:
    """A stream to which `structlog` writes bytes, and `logging` writes text.

    If it is closed or full, log lines are lost, but requests succeed. The next line that can be written is preceded by
    one that tells how many were lost.
    """

    def __init__(self, stream: BinaryIO, render: Render) -> None:
        self._stream = stream
        # Without the buffer, each line is written by one call, and what is left of it is known.
        self._raw = getattr(stream, "raw", stream)
        self._render = render
        self._lock = Lock()
        self._rest = b""  # of a line whose beginning has been written
        self._lost_count = 0
        self.isatty = stream.isatty

    def write(self, line: bytes | str) -> None:
        data = line.encode() if isinstance(line, str) else line
        with self._lock:
            if self._lost_count and self._put(self._line_about_lost()):
                self._lost_count = 0
            if not self._lost_count and self._put(data):
                return
            self._lost_count += 1
        # Commands and the parent of workers, which report no metrics, do not load them.
        from wxauth.core.metrics import LOG_LINES_LOST

        LOG_LINES_LOST.count()

    def flush(self) -> None:
        """Do nothing, because nothing is buffered."""

    def discard(self) -> None:
        """Drop lines that cannot be written. Otherwise Python would try to write them at exit, and fail."""
        with suppress(ValueError):  # the stream is closed
            try:
                self._stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def _put(self, line: bytes) -> bool:
        """Write a line. Return False if not even its beginning was written. What is left of it is written later."""
        data = self._rest + line
        try:
            # The number is None if the write would block.
            while data and (count := self._raw.write(data)):
                data = data[count:]
        except (OSError, ValueError):
            pass
        is_begun = len(data) < len(line)
        self._rest = data if is_begun else data[: len(data) - len(line)]
        return is_begun

    def _line_about_lost(self) -> bytes:
        event: LogEvent = {"count": self._lost_count, "event": "log_lines_lost"}
        return self._render(None, "error", _add_common_fields(None, "error", event)) + b"\n"
