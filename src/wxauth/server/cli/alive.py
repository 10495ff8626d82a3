"""`wxauth alive`."""

import os
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import click
from dotenv import dotenv_values


@click.command()
@click.option("--ready", is_flag=True, help="Check that it can serve, as /readyz says.")
def alive(*, ready: bool) -> None:
    """Check that the service on this machine answers. Asks WXAUTH_HOST at WXAUTH_PORT; for health checks."""
    host, port = _address()
    connection = HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz" if ready else "/livez")
        status = connection.getresponse().status
    except (OSError, HTTPException) as exc:
        sys.exit(f"nothing answers at {host}, port {port}: {type(exc).__name__}. 该地址无响应。")
    if status != 200:
        sys.exit(f"the answer at {host}, port {port} has status {status}. 响应的状态码为 {status}。")


def _address() -> tuple[str, int]:
    # Read without the settings, which take half a second of CPU to load: a health check runs every few seconds.
    given = dotenv_values(".env") if Path(".env").exists() else {}
    host = os.environ.get("WXAUTH_HOST") or given.get("WXAUTH_HOST") or "127.0.0.1"
    port = os.environ.get("WXAUTH_PORT") or given.get("WXAUTH_PORT") or ""
    # For a Service named wxauth, Kubernetes sets this variable to a URL instead of a port.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port) if port.isdigit() else 8000  # noqa: S104
