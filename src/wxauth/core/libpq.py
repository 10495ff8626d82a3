"""The reading of the database's URL and of libpq's environment variables and files, in the same way as libpq.

asyncpg understands only a part of them, or reads them differently.
"""

import errno
import os
import re
import ssl
import stat
from collections.abc import Collection, Mapping, Sequence
from getpass import getuser
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from wxauth.settings.urls import split_hosts

# asyncpg would send these parameters of libpq to the server as settings of the session.
_UNKNOWN_TO_ASYNCPG: Final = frozenset(
    [
        "client_encoding",
        "connect_timeout",
        "fallback_application_name",
        "gssdelegation",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "sslcompression",
        "sslsni",
        "tcp_user_timeout",
    ]
)
_OPTIONAL: Final = frozenset(
    (name, value) for name in ("channel_binding", "gssencmode") for value in ("prefer", "disable")
)
_TLS_FILES: Final = ("sslrootcert", "sslcrl", "sslcert", "sslkey")
_IN_ENVIRONMENT: Final = ("host", "port", "user", "password", "database", "passfile", "service", "sslmode", *_TLS_FILES)
"""The parameters that environment variables can set.

The variable's name is `PG` and the parameter's name in capitals.
"""
_VERIFYING: Final = frozenset({"require", "verify-ca", "verify-full"})
"""The values of `sslmode` with which the driver reads `sslrootcert` and `sslcrl`."""
_AT_HOME: Final = ("postgresql.crt", "postgresql.key", "root.crt", "root.crl")
_NO_FILE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)
"""The errors with which a path in the home directory is no file. They say nothing about the rights of this process."""


class DatabaseUrl(NamedTuple):
    """The URL of the database, in the form in which asyncpg understands it."""

    dsns: Sequence[str]
    """A DSN for each host."""
    parameters: Collection[str]
    """The names of the parameters in the query, some of which are settings of the session."""
    pooler: str
    """The value of our own parameter `pgbouncer`."""


def read_url(url: str) -> DatabaseUrl:
    """Read a URL with one host or several."""
    parts, hosts = split_hosts(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query = {
        name: value
        for name, value in query.items()
        if name not in _UNKNOWN_TO_ASYNCPG and (name, value) not in _OPTIONAL
    }
    pooler = query.pop("pgbouncer", "")
    authority = os.environ.get("SSL_CERT_FILE")
    if authority and "PGSSLROOTCERT" not in os.environ and query.get("sslmode") in ("verify-ca", "verify-full"):
        query.setdefault("sslrootcert", authority)
    _leave_home_of_another_user()
    return DatabaseUrl(_dsn_of_each_host(parts, hosts, query), query.keys(), pooler)


def _dsn_of_each_host(parts: SplitResult, hosts: list[str], query: dict[str, str]) -> list[str]:
    user, at, netloc = parts.netloc.rpartition("@")
    hosts = hosts if netloc else query.get("host", "").split(",")
    if len(hosts) > 1:
        query.setdefault("target_session_attrs", "read-write")
    if netloc:
        return [urlunsplit(parts._replace(netloc=user + at + host, query=urlencode(query))) for host in hosts]
    ports = query.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return [
        urlunsplit(parts._replace(query=urlencode({**query, "host": host, "port": port})))
        for host, port in zip(hosts, ports, strict=True)
    ]


def _leave_home_of_another_user() -> None:
    """Replace HOME if this process may not read libpq's files in the home directory, for example under `sudo -E`.

    libpq ignores files that it may not read, but asyncpg fails.
    """
    try:
        files = [Path.home() / ".postgresql" / name for name in _AT_HOME]
    except RuntimeError:  # there is no home directory
        return
    if any(_why_unreadable(file) not in (None, *_NO_FILE) for file in files):
        os.environ["HOME"] = os.devnull


def host_and_port(dsn: str) -> tuple[str, str]:
    """Return the host and the port of a DSN. The host is empty for the default socket."""
    given = _parameters(dsn)
    return given.get("host", ""), given.get("port", "5432")


def password_in_file(dsn: str) -> str | None:
    r"""Return the password that the password file has for a DSN without one.

    asyncpg would leave the backslashes of `\:` and `\\` in the password.
    """
    given = _parameters(dsn)
    if given.keys() & {"password", "service"}:
        return None
    host = given.get("host", "localhost")
    hosts = [host, "localhost"] if host.startswith("/") else host.split(",")
    user = given.get("user") or getuser()
    database = given.get("dbname") or given.get("database") or user
    wanted = (hosts, [given.get("port", "5432")], [database], [user])
    file = Path(given.get("passfile") or os.path.expanduser("~/.pgpass"))
    try:
        mode = file.stat().st_mode
        # libpq ignores a password file that is not regular, or that other users may access. asyncpg does the same.
        is_heeded = stat.S_ISREG(mode) and not mode & 0o077
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if is_heeded else []
    except OSError:
        return None
    fields = ("|".join([r"\*", *("".join(rf"\\?{re.escape(c)}" for c in name) for name in names)]) for names in wanted)
    line = re.compile("".join(f"(?:{field}):" for field in fields) + r"((?:\\.|[^\\:])*\\?)")
    found = next(filter(None, map(line.match, lines)), None)
    return found and re.sub(r"\\(.)", r"\1", found[1])


def unreadable_file(dsn: str) -> tuple[str, str] | None:
    """Return the first file in the parameters that cannot be read, and the reason.

    Return None if there is no such file. The driver's error does not name the file. The password file is not checked if
    there is a password.
    """
    given = _parameters(dsn)
    mode = given.get("sslmode", "prefer")
    for name in (*_TLS_FILES, "passfile"):
        file = given.get(name)
        if not file or ("password" in given if name == "passfile" else mode == "disable"):
            continue
        if name in ("sslrootcert", "sslcrl") and mode not in _VERIFYING:
            continue
        if (why := _why_unreadable(Path(file))) is not None:
            return file, os.strerror(why)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if name in ("sslrootcert", "sslcrl", "sslcert"):
                context.load_verify_locations(file)
            elif name == "sslkey" and "sslcert" in given:
                context.load_cert_chain(given["sslcert"], file, password=lambda: given.get("sslpassword", ""))
        except ssl.SSLError as exc:
            return file, exc.reason or "not PEM"
    return None


def _why_unreadable(file: Path) -> int | None:
    """Return the errno with which reading the file would fail; None if it can be read.

    The file is not opened, because opening a pipe waits for its writer. `Path.exists` could not tell a folder that may
    not be searched from a missing file, from Python 3.14 on.
    """
    try:
        mode = file.stat().st_mode
    except OSError as exc:
        return exc.errno
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return None if os.access(file, os.R_OK, effective_ids=True) else errno.EACCES


def _parameters(dsn: str) -> Mapping[str, str]:
    """Return the parameters of a DSN that are not empty: from the environment, its query, and its other parts.

    If several of these sources set a parameter, the last one counts.
    """
    parts = urlsplit(dsn)
    of_parts = {
        "host": parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}").strip("[]"),
        "port": str(parts.port or ""),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path[1:]),
    }
    of_environment = {name: os.environ.get(f"PG{name.upper()}", "") for name in _IN_ENVIRONMENT}
    sources = (of_environment, dict(parse_qsl(parts.query)), of_parts)
    return {name: value for source in sources for name, value in source.items() if value}
