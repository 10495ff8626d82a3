"""The search for a file named in libpq's parameters that prevents a connection."""

import errno
import os
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PARAMETERS: Final = ("sslrootcert", "sslcrl", "sslcert", "sslkey", "passfile")
_VERIFYING: Final = frozenset({"require", "verify-ca", "verify-full"})
"""The values of `sslmode` with which the driver reads `sslrootcert` and `sslcrl`."""


def unreadable_file(query: Mapping[str, str], *, has_password: bool) -> tuple[str, str] | None:
    """Return the first file of libpq's parameters that cannot be read, and why; None if there is none.

    The driver's error does not name the file. A parameter is taken from the query of the URL, or from the environment
    as libpq does. If there is a password, the password file is not read.
    """
    given = {name: query.get(name) or os.environ.get(f"PG{name.upper()}") for name in ("sslmode", *_PARAMETERS)}
    mode = given["sslmode"] or "prefer"
    for name in _PARAMETERS:
        file = given[name]
        if not file or (has_password if name == "passfile" else mode == "disable"):
            continue
        if name in ("sslrootcert", "sslcrl") and mode not in _VERIFYING:
            continue
        if (reason := _why_unreadable(file)) is not None:
            return file, reason
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if name in ("sslrootcert", "sslcrl", "sslcert"):
                context.load_verify_locations(file)
            elif name == "sslkey" and given["sslcert"]:
                context.load_cert_chain(given["sslcert"], file, password=lambda: query.get("sslpassword", ""))
        except ssl.SSLError as exc:
            return file, exc.reason or "not PEM"
    return None


def _why_unreadable(file: str) -> str | None:
    """Return why the file cannot be read, without opening it, because a pipe would wait for its writer."""
    try:
        mode = Path(file).stat().st_mode
    except OSError as exc:
        return exc.strerror or type(exc).__name__
    if stat.S_ISDIR(mode):
        return os.strerror(errno.EISDIR)
    return None if os.access(file, os.R_OK, effective_ids=True) else os.strerror(errno.EACCES)
