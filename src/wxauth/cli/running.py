"""The commands `wxauth serve`, `alive` and `openapi`.

Each command imports the modules that it needs only when it is called, because the imports of the other commands would
delay it. For the same reason, the commands end with `sys.exit` instead of raising `printing.Failed`.
"""

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final

import click

from wxauth.i18n import lazy_gettext as _
from wxauth.terminal import localized, os_reason

_ALIVE_TIMEOUT_SECONDS: Final = 2.0  # for each step of the request
# `alive` does not import the settings, so these constants copy two defaults from `Settings`.
_DEFAULT_HOST: Final = "127.0.0.1"
_DEFAULT_PORT: Final = 8000


@click.command()
def serve() -> None:
    """Run the service in production. The settings are read from WXAUTH_* variables (docs/reference/settings.md)."""
    if os.name != "posix":  # Windows has no fork, with which the service starts its processes
        sys.exit(localized(_("wxauth serve requires Linux or macOS. On Windows, use WSL.")))
    from wxauth.service import server
    from wxauth.settings.loading import load_settings
    from wxauth.settings.settings import InvalidSettings, Settings

    try:
        server.serve(load_settings(Settings))
    except InvalidSettings as exc:
        sys.exit(localized(exc.text))


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    import json

    from wxauth.service.app import create_api

    click.echo(json.dumps(create_api().openapi(), ensure_ascii=False, indent=2))


@click.command()
@click.option("--ready", is_flag=True, help="Check that the service is ready to process requests, as /readyz does.")
def alive(*, ready: bool) -> None:
    """Check that the service on this machine responds.

    The command sends a request to WXAUTH_HOST on port WXAUTH_PORT. Use it for health checks.
    """
    host, port = _address()
    try:
        connection = HTTPConnection(host, port, timeout=_ALIVE_TIMEOUT_SECONDS)
        connection.request("GET", "/readyz" if ready else "/livez")
        status = connection.getresponse().status
    except (OSError, HTTPException, UnicodeError) as exc:  # a UnicodeError means that the host is not a valid name
        text = _("nothing responds on {host}, port {port}: {error}", host=host, port=port, error=type(exc).__name__)
        sys.exit(localized(text))
    if status != HTTPStatus.OK:
        text = _("the response from {host}, port {port} has status {status}", host=host, port=port, status=status)
        sys.exit(localized(text))


def _address() -> tuple[str, int]:
    """Return the host and the port of the service, from only the environment and the file `.env`.

    Importing and loading the settings would take half a second of CPU time, and a health check runs every few seconds.
    """
    from wxauth.settings.env_file import ENV_FILE, read_env_file

    try:
        in_file = read_env_file(ENV_FILE).values
    except UnicodeDecodeError:
        sys.exit(localized(_("{name}: must be UTF-8 text", name=ENV_FILE)))
    except OSError as exc:
        sys.exit(localized(_("can't read {file}: {reason}", file=ENV_FILE, reason=os_reason(exc))))
    host = (os.environ.get("WXAUTH_HOST") or in_file.get("WXAUTH_HOST") or "").strip()
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - the last two mean all addresses, including 127.0.0.1
        host = _DEFAULT_HOST
    port = (os.environ.get("WXAUTH_PORT") or in_file.get("WXAUTH_PORT") or "").strip()
    # For a Service named wxauth, Kubernetes sets WXAUTH_PORT to a URL instead of a port.
    return host, (int(port) if port.isascii() and port.isdigit() else _DEFAULT_PORT)
