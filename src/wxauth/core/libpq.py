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
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings.urls import split_hosts

# asyncpg lacks these features, and wxauth connects without them.
_OMITTED: Final = frozenset(
    [
        *(("channel_binding", value) for value in ("require", "prefer", "disable")),
        *(("gssencmode", value) for value in ("prefer", "disable")),
    ]
)
CHANNEL_BINDING_LACKING: Final = _(
    "channel_binding=require has no effect, because wxauth doesn't support channel binding. To protect the "
    "connection, use sslmode=verify-full"
)
_SYSTEM: Final = "system"  # the authorities that the operating system trusts
_SYSTEM_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL, openEuler
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS
)
# A port from 1 to 65535, which may begin with zeros.
_PORT: Final = r"0*(?!0)(?:\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
_HOST_IN_LIST: Final = rf"(?:/[^,]*|(?:\[[^\],]+\]|[^,:\[]*)(?::{_PORT})?)"
_TLS_VERSION: Final = r"TLSv1(?:\.[123])?"
# asyncpg rejects any other value of these variables.
_VARIABLE_PATTERNS: Final = {
    "PGHOST": rf"{_HOST_IN_LIST}(?:,{_HOST_IN_LIST})*",
    "PGPORT": rf"{_PORT}(?:,{_PORT})*",
    "PGSSLMODE": "disable|allow|prefer|require|verify[-_]ca|verify[-_]full",
    "PGSSLNEGOTIATION": "postgres|direct",
    "PGSSLMINPROTOCOLVERSION": _TLS_VERSION,
    "PGSSLMAXPROTOCOLVERSION": _TLS_VERSION,
    "PGTARGETSESSIONATTRS": "any|primary|standby|prefer-standby|read-write|read-only",
    "PGGSSLIB": "gssapi|sspi",
}
_AUTHORITY_FILES: Final = ("sslrootcert", "sslcrl")
_CLIENT_FILES: Final = ("sslcert", "sslkey")
# libpq also reads these parameters from the environment, as `PG` with the name in capitals.
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
# In these modes, asyncpg reads `_AUTHORITY_FILES`.
_MODES_READING_AUTHORITIES: Final = frozenset({"require", "verify-ca", "verify-full"})
# asyncpg reads these files from `~/.postgresql` if they exist.
_FILES_AT_HOME: Final = ("postgresql.crt", "postgresql.key", "root.crt", "root.crl")
_DEFAULT_PORT: Final = "5432"
# Any other error means that this process may not read the file.
_NO_FILE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)


class DatabaseUrl(NamedTuple):
    """The URL of the database, in the form that asyncpg understands."""

    dsns: Sequence[str]  # one for each host
    parameters: Collection[str]  # in the query, including settings of the session
    pooler: str  # wxauth's own `pgbouncer`: `1`, `true` and `prepared` stand for a pooler
    requires_channel_binding: bool
    refusal: Text | None  # for a reason that asyncpg would not name


class UnusableFile(NamedTuple):
    """A file that asyncpg would fail to use, for example because it is not PEM."""

    path: str  # followed by the name of the environment variable that contains it, if one does
    reason: str


def read_url(url: str) -> DatabaseUrl:
    """Read a URL with one host or several.

    The DSNs omit parameters that services print although they have no effect here, and contain wxauth's defaults for
    those that the URL lacks.
    """
    parts, hosts = split_hosts(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    pooler = query.pop("pgbouncer", "")
    requires_channel_binding = query.get("channel_binding") == "require"
    encoding = query.pop("client_encoding", "utf8")  # the server would take it, and asyncpg reads only UTF-8
    query.pop("connect_timeout", None)  # Neon adds it to a URL for Prisma; wxauth has a deadline of its own
    # The server refuses by its name any other parameter that asyncpg doesn't know.
    query = {name: value for name, value in query.items() if (name, value) not in _OMITTED}
    refusal = None if encoding.replace("-", "").lower() == "utf8" else _("client_encoding must be UTF8")
    if (query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")) == _SYSTEM:
        if (query.get("sslmode") or os.environ.get("PGSSLMODE") or "verify-full") != "verify-full":
            refusal = _("sslrootcert=system requires sslmode=verify-full")
        query |= {"sslmode": "verify-full", "sslrootcert": _system_authorities()}
    netlocs_and_queries = _netlocs_and_queries(parts, hosts, query)
    defaults = _defaults_for(query, has_several_hosts=len(netlocs_and_queries) > 1)
    dsns = [
        urlunsplit(parts._replace(netloc=netloc, query=urlencode({**defaults, **query_of_host})))
        for netloc, query_of_host in netlocs_and_queries
    ]
    return DatabaseUrl(dsns, query.keys(), pooler, requires_channel_binding, refusal)


def _system_authorities() -> str:
    # As OpenSSL does, wxauth uses SSL_CERT_FILE even if the file doesn't exist.
    file = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    return file or next(filter(os.path.exists, _SYSTEM_FILES), _SYSTEM_FILES[0])


def _netlocs_and_queries(
    parts: SplitResult, hosts: Sequence[str], query: Mapping[str, str]
) -> list[tuple[str, Mapping[str, str]]]:
    user, at, first_host = parts.netloc.rpartition("@")
    if not first_host:
        return [(parts.netloc, {**query, **place}) for place in _places_in(query)]
    # In libpq, the port in the query applies to each host in the URL's authority that has no port of its own. asyncpg
    # would ignore the port in the query, so wxauth adds it to these hosts. If the query names hosts, too, its ports
    # belong to those hosts, and asyncpg ignores both.
    port = "" if query.get("host") else query.get("port", "")
    return [(f"{user}{at}{_with_port(host, port)}", query) for host in hosts]


def _with_port(host: str, port: str) -> str:
    has_port = re.search(r":\d+$", host) is not None
    return f"{host}:{port}" if port and not has_port else host


def _places_in(query: Mapping[str, str]) -> list[dict[str, str]]:
    hosts = query.get("host", "").split(",")
    ports = query.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    # `zip` cannot fail, because the settings refuse a URL with any other number of ports.
    return [{"host": host, "port": port} for host, port in zip(hosts, ports, strict=True)]


def _defaults_for(query: Mapping[str, str], *, has_several_hosts: bool) -> dict[str, str]:
    # Without this default, wxauth would use the first host that responds, even if that host accepts no writes.
    defaults = {"target_session_attrs": "read-write"} if has_several_hosts else {}
    # wxauth's other connections trust SSL_CERT_FILE, too, but asyncpg does not read it.
    authorities = os.environ.get("SSL_CERT_FILE")
    is_verified = query.get("sslmode") in ("verify-ca", "verify-full")
    if authorities and is_verified and not os.environ.get("PGSSLROOTCERT"):
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
    """Return the host, which is empty for the default socket, and the port."""
    parameters = _parameters(dsn)
    return parameters.get("host", ""), parameters.get("port", _DEFAULT_PORT)


def password_in_file(dsn: str) -> str | None:
    r"""Return the password that the password file contains for a DSN.

    wxauth reads the file itself, because asyncpg would leave the backslashes of `\:` and `\\` in the password. If the
    DSN or the environment contains a password, or names a service, whose file only asyncpg reads, return None.
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
    # libpq accepts a backslash before each character, and requires none, not even before the colons of an IPv6 address.
    escaped = ("".join(rf"\\?{re.escape(character)}" for character in value) for value in values)
    return rf"(?:\*|{'|'.join(escaped)}):"


def _lines_of_password_file(path: str | None) -> Sequence[str]:
    file = Path(path or os.path.expanduser("~/.pgpass"))
    try:
        mode = file.stat().st_mode
        # libpq also ignores a file that is not regular, or is accessible to other users.
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            return []
        return file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []


def unusable_file(dsn: str) -> UnusableFile | None:
    """Return the first file that asyncpg would fail to use. Its own error does not name the file."""
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
            variable = "" if name in dict(parse_qsl(urlsplit(dsn).query)) else f" (PG{name.upper()})"
            return UnusableFile(f"{parameters[name]}{variable}", reason)
    return None


def _why_unusable(name: str, parameters: Mapping[str, str]) -> str | None:
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


def wrong_variable(dsn: str) -> str | None:
    """Return the first environment variable that asyncpg rejects, and that the DSN doesn't override."""
    parts = urlsplit(dsn)
    overridden = {f"PG{name.replace('_', '').upper()}" for name, _value in parse_qsl(parts.query)}
    if parts.hostname:
        overridden.add("PGHOST")
    for name, pattern in _VARIABLE_PATTERNS.items():
        value = os.environ.get(name)
        if value and name not in overridden and not re.fullmatch(pattern, value, re.ASCII):
            return name
    # asyncpg requires one port, or as many as there are hosts.
    ports = os.environ.get("PGPORT", "")
    if "," in ports and ports.count(",") != os.environ.get("PGHOST", "").count(","):
        return "PGPORT"
    return None


def _errno_of_reading(file: Path) -> int | None:
    # This function does not open the file, because opening a pipe waits for its writer. It does not use `Path.exists`,
    # which from Python 3.14 on also returns False if this process may not search the folder.
    try:
        mode = file.stat().st_mode
    except OSError as exc:
        return exc.errno
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return None if os.access(file, os.R_OK, effective_ids=True) else errno.EACCES


def _parameters(dsn: str) -> Mapping[str, str]:
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
