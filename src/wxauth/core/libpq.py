"""Readers of the database's URL and of libpq's environment variables and files. They follow the rules of libpq.

asyncpg supports only some of libpq's parameters, and reads some of them and the password file differently.
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
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

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
_OPTIONAL_FEATURES: Final = frozenset(
    (name, value) for name in ("channel_binding", "gssencmode") for value in ("prefer", "disable")
)
"""The parameters of features that asyncpg lacks, with the values for which a connection does not need the feature."""
_AUTHORITY_FILES: Final = ("sslrootcert", "sslcrl")
"""The parameters that name the files that asyncpg needs to check the server's certificate."""
_CLIENT_FILES: Final = ("sslcert", "sslkey")
"""The parameters that name the files of the client's certificate."""
_IN_ENVIRONMENT: Final = (
    "host",
    "port",
    "user",
    "password",
    "database",
    "passfile",
    "service",
    "sslmode",
    *_AUTHORITY_FILES,
    *_CLIENT_FILES,
)
"""The parameters that wxauth also reads from environment variables.

The variable's name is `PG`, followed by the parameter's name in capitals.
"""
_MODES_READING_AUTHORITIES: Final = frozenset({"require", "verify-ca", "verify-full"})
"""The values of `sslmode` that make asyncpg read the files of `_AUTHORITY_FILES`."""
_FILES_AT_HOME: Final = ("postgresql.crt", "postgresql.key", "root.crt", "root.crl")
"""The files that asyncpg reads from `~/.postgresql` if they exist."""
_DEFAULT_PORT: Final = "5432"
_NO_FILE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)
"""The errors for a path that does not lead to a file. Any other error means that this process may not read the file."""


class DatabaseUrl(NamedTuple):
    """The URL of the database, in the form that asyncpg understands."""

    dsns: Sequence[str]
    """A DSN for each host, in the order of the URL."""
    parameters: Collection[str]
    """The names of the query's parameters that the DSNs contain, some of which are settings of the session."""
    pooler: str
    """The value of wxauth's own parameter `pgbouncer`; empty if the URL does not set it.

    `1`, `true` and `prepared` stand for a pooler, and any other value for none.
    """


class UnusableFile(NamedTuple):
    """A file that asyncpg would fail to use, for example because it is not PEM."""

    path: str
    reason: str


def read_url(url: str) -> DatabaseUrl:
    """Read a URL with one host or several.

    The DSNs omit the parameters that asyncpg does not know. They contain wxauth's defaults for the parameters that the
    URL does not set.
    """
    parts, hosts = split_hosts(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    pooler = query.pop("pgbouncer", "")
    query = {
        name: value
        for name, value in query.items()
        if name not in _UNKNOWN_TO_ASYNCPG and (name, value) not in _OPTIONAL_FEATURES
    }
    user, at, first_host = parts.netloc.rpartition("@")
    if first_host:
        # In libpq, the port in the query applies to each host in the URL's authority that has no port of its own.
        # asyncpg would ignore the port in the query, so wxauth adds it to these hosts. If the query names hosts, too,
        # its ports belong to those hosts, and asyncpg ignores both.
        port = "" if query.get("host") else query.get("port", "")
        netlocs_and_queries = [(f"{user}{at}{_with_port(host, port)}", query) for host in hosts]
    else:
        netlocs_and_queries = [(parts.netloc, query | place) for place in _places_in(query)]
    defaults = _defaults_for(query, has_several_hosts=len(netlocs_and_queries) > 1)
    dsns = [
        urlunsplit(parts._replace(netloc=netloc, query=urlencode(defaults | query_of_host)))
        for netloc, query_of_host in netlocs_and_queries
    ]
    return DatabaseUrl(dsns, query.keys(), pooler)


def _with_port(host: str, port: str) -> str:
    """Return a host of a URL with this port. If the host already has a port, or if `port` is empty, return the host."""
    has_port = re.search(r":\d+$", host) is not None
    return f"{host}:{port}" if port and not has_port else host


def _places_in(query: Mapping[str, str]) -> list[dict[str, str]]:
    """Return each host in a query with its port. A single port applies to all hosts.

    Raises: ValueError, if there are several ports, but not one for each host. The settings refuse such a URL.
    """
    hosts = query.get("host", "").split(",")
    ports = query.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    return [{"host": host, "port": port} for host, port in zip(hosts, ports, strict=True)]


def _defaults_for(query: Mapping[str, str], *, has_several_hosts: bool) -> dict[str, str]:
    """Return wxauth's defaults for a query. The query's own parameters take precedence over them.

    If there are several hosts, wxauth uses the primary. If the query's `sslmode` requires a verified certificate, and
    `PGSSLROOTCERT` is not set, wxauth trusts the authorities in `SSL_CERT_FILE`.
    """
    defaults = {"target_session_attrs": "read-write"} if has_several_hosts else {}
    authorities = os.environ.get("SSL_CERT_FILE")
    is_verified = query.get("sslmode") in ("verify-ca", "verify-full")
    if authorities and is_verified and "PGSSLROOTCERT" not in os.environ:
        defaults["sslrootcert"] = authorities
    return defaults


def hide_unreadable_home() -> None:
    """Set HOME to `/dev/null` if this process may not read libpq's files in it, for example under `sudo -E`.

    libpq ignores files that it may not read, but asyncpg fails.
    """
    try:
        files = [Path.home() / ".postgresql" / name for name in _FILES_AT_HOME]
    except RuntimeError:  # there is no home directory
        return
    if any(_errno_of_reading(file) not in (None, *_NO_FILE) for file in files):
        os.environ["HOME"] = os.devnull


def host_and_port(dsn: str) -> tuple[str, str]:
    """Return the host and the port of a DSN. The host is empty for the default socket."""
    parameters = _parameters(dsn)
    return parameters.get("host", ""), parameters.get("port", _DEFAULT_PORT)


def password_in_file(dsn: str) -> str | None:
    r"""Return the password that the password file contains for a DSN.

    wxauth reads the file itself, because asyncpg would leave the backslashes of `\:` and `\\` in the password.

    Return None if the file has no line for the DSN, or if the DSN or the environment contains a password. Also return
    None if one of them names a service, because only asyncpg reads the service's file.
    """
    parameters = _parameters(dsn)
    if parameters.keys() & {"password", "service"}:
        return None
    host = parameters.get("host", "localhost")
    hosts = [host, "localhost"] if host.startswith("/") else host.split(",")  # localhost also stands for a socket
    port = parameters.get("port", _DEFAULT_PORT)
    user = parameters.get("user") or getuser()
    database = parameters.get("dbname") or parameters.get("database") or user
    fields_pattern = "".join(_field_pattern(values) for values in (hosts, [port], [database], [user]))
    # In the password, a backslash escapes the next character. A backslash at the end of the line stands for itself.
    line_pattern = re.compile(fields_pattern + r"(?P<password>(?:\\.|[^\\:])*\\?)")
    for line in _lines_of_password_file(parameters.get("passfile")):
        if (match := line_pattern.match(line)) is not None:
            return re.sub(r"\\(.)", r"\1", match["password"])
    return None


def _field_pattern(values: Collection[str]) -> str:
    """Return the pattern of a field in the password file that is `*` or one of these values, with the colon after it.

    libpq accepts a backslash before each character, and requires none, not even before the colons of an IPv6 address.
    """
    escaped = ("".join(rf"\\?{re.escape(character)}" for character in value) for value in values)
    return rf"(?:\*|{'|'.join(escaped)}):"


def _lines_of_password_file(path: str | None) -> Sequence[str]:
    """Return the lines of the password file, which by default is `~/.pgpass`.

    Return no lines if libpq would ignore the file, because the file cannot be read, is not a regular file, or is
    accessible to other users.
    """
    file = Path(path or os.path.expanduser("~/.pgpass"))
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            return []
        return file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []


def unusable_file(dsn: str) -> UnusableFile | None:
    """Return the first file in the parameters that asyncpg would fail to use; None if there is none.

    The errors of wxauth name this file, because asyncpg's own error does not.
    """
    parameters = _parameters(dsn)
    sslmode = parameters.get("sslmode", "prefer")
    # asyncpg opens a file only under these conditions.
    names: list[str] = []
    if sslmode in _MODES_READING_AUTHORITIES:
        names += _AUTHORITY_FILES
    if sslmode != "disable":
        names += _CLIENT_FILES
    if "password" not in parameters:
        names.append("passfile")
    for name in names:
        if name not in parameters:
            continue
        reason = _why_unusable(name, parameters)
        if reason is not None:
            return UnusableFile(parameters[name], reason)
    return None


def _why_unusable(name: str, parameters: Mapping[str, str]) -> str | None:
    """Return why asyncpg would fail to use the file of this parameter, or None if asyncpg can use the file."""
    file = parameters[name]
    error_number = _errno_of_reading(Path(file))
    if error_number is not None:
        return os.strerror(error_number)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if name in (*_AUTHORITY_FILES, "sslcert"):
            # For the client's certificate, this call only shows whether the file is PEM.
            context.load_verify_locations(file)
        elif name == "sslkey" and "sslcert" in parameters:
            # Without any password, OpenSSL would ask for the password of an encrypted key on the terminal.
            context.load_cert_chain(parameters["sslcert"], file, password=parameters.get("sslpassword", ""))
    except ssl.SSLError as exc:
        return exc.reason or "not PEM"
    return None


def _errno_of_reading(file: Path) -> int | None:
    """Return the errno that reading the file would fail with, or None if the file can be read.

    The function does not open the file, because opening a pipe waits for its writer. It does not use `Path.exists`,
    because from Python 3.14 on, `Path.exists` also returns False if this process may not search the folder.
    """
    try:
        mode = file.stat().st_mode
    except OSError as exc:
        return exc.errno
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return None if os.access(file, os.R_OK, effective_ids=True) else errno.EACCES


def _parameters(dsn: str) -> Mapping[str, str]:
    """Return the parameters from the environment, from the DSN's query, and from the DSN's other parts.

    If several of these sources set a parameter, the last source counts. Empty parameters are omitted.
    """
    parts = urlsplit(dsn)
    from_parts = {
        "host": unquote(parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}").strip("[]")),
        "port": str(parts.port or ""),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path[1:]),
    }
    from_environment = {name: os.environ.get(f"PG{name.upper()}", "") for name in _IN_ENVIRONMENT}
    sources = (from_environment, dict(parse_qsl(parts.query)), from_parts)
    return {name: value for source in sources for name, value in source.items() if value}
