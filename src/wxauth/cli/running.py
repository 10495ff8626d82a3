"""`wxauth serve`, `dev`, `wechat`, `alive`, `openapi`: the service and its API. Each is imported when it is called."""

import os
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import click

from wxauth.core.terminal import localized
from wxauth.i18n import lazy_gettext as _


@click.command()
def serve() -> None:
    """Run the service in production. Settings are read from WXAUTH_* (docs/settings.md)."""
    _refuse_windows("serve")
    from wxauth.cli.resources import failures_printed
    from wxauth.core.settings import Settings, load_settings
    from wxauth.service import server

    with failures_printed():
        server.serve(load_settings(Settings))


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the service; WXAUTH_PORT, or 8000. The others follow it."
)
@click.option(
    "--wechat-port",
    type=click.IntRange(1, 65535),
    help="Port of the simulated WeChat; the service's + 1, if it is free.",
)
@click.option(
    "--site-port", type=click.IntRange(1, 65535), help="Port of the example sites; the service's + 4, if it is free."
)
@click.option("--allow-host", "allowed_hosts", multiple=True, help="Another name to answer to; repeatable.")
@click.option("--shop", "shop_url", metavar="URL", help="A back end of yours that sells, in place of the example's.")
def dev(
    port: int | None,
    wechat_port: int | None,
    site_port: int | None,
    allowed_hosts: tuple[str, ...],
    shop_url: str | None,
) -> None:
    """Run the service for development, with nothing configured.

    Starts its own PostgreSQL (kept under .wxauth/), a simulated WeChat, and a website that logs people in by scan. If
    WXAUTH_APP_ID is set, the real WeChat is used; the app secret is WXAUTH_APP_SECRET, or you are asked for it. If
    WXAUTH_DATABASE_URL is set, that database is used.

    It answers only to names of this machine: localhost, those of WXAUTH_HOST and WXAUTH_ISSUER, and --allow-host.
    """
    _refuse_windows("dev")
    from wxauth.cli.printing import WrongCall
    from wxauth.cli.resources import failures_printed
    from wxauth.dev.middleware import name_in
    from wxauth.dev.run import run  # cannot be imported on Windows, nor without the extra dev

    names = [name_in(host) for host in allowed_hosts]
    if None in names:
        raise WrongCall(_("--allow-host must be a name or an address, such as laptop.example.com"))
    with failures_printed():
        run(
            port=port,
            wechat_port=wechat_port,
            site_port=site_port,
            shop_url=shop_url,
            allowed_hosts=[name for name in names if name is not None],
        )


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8001, help="Port of the simulated WeChat.", show_default=True
)
def wechat(port: int) -> None:
    """Run the simulated WeChat alone, without a database.

    It answers as api.weixin.qq.com does, for a program or an SDK whose host can be set. Its appids, AppSecrets and
    controls are in the manual at /about.
    """
    from wxauth.cli.resources import failures_printed
    from wxauth.dev import alone

    with failures_printed():
        alone.run(port)


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    import json

    from wxauth.service.app import create_api

    click.echo(json.dumps(create_api().openapi(), ensure_ascii=False, indent=2))


@click.command()
@click.option("--ready", is_flag=True, help="Check that it can serve, as /readyz says.")
def alive(*, ready: bool) -> None:
    """Check that the service on this machine answers. Asks WXAUTH_HOST at WXAUTH_PORT; for health checks."""
    host, port = _address()
    try:
        connection = HTTPConnection(host, port, timeout=2)
        connection.request("GET", "/readyz" if ready else "/livez")
        status = connection.getresponse().status
    except (OSError, HTTPException, UnicodeError) as exc:
        text = _("nothing answers at {host}, port {port}: {error}", host=host, port=port, error=type(exc).__name__)
        sys.exit(localized(text))
    if status != 200:
        text = _("the answer at {host}, port {port} has status {status}", host=host, port=port, status=status)
        sys.exit(localized(text))


def _refuse_windows(command: str) -> None:
    """Refuse to run where processes cannot fork, and the bundled PostgreSQL cannot end together with its owner."""
    if os.name != "posix":
        sys.exit(localized(_("wxauth {command} needs Linux or macOS; on Windows run it in WSL", command=command)))


def _address() -> tuple[str, int]:
    # Read without the settings, which take half a second of CPU to load: a health check runs every few seconds.
    from wxauth.core.env_file import read_env_file

    try:
        given, _lines = read_env_file(Path(".env"))
    except UnicodeDecodeError:
        sys.exit(localized(_("{name}: must be UTF-8 text", name=".env")))
    host, port = ((os.environ.get(name) or given.get(name) or "").strip() for name in ("WXAUTH_HOST", "WXAUTH_PORT"))
    # For a Service named wxauth, Kubernetes sets this variable to a URL instead of a port.
    host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104 - compared only
    return host, int(port) if port.isdigit() else 8000
