"""`wxauth alive`."""

import click

from wxauth.server.cli.asking import Failed


@click.command()
def alive() -> None:
    """Ask the service that runs here, at WXAUTH_HOST and WXAUTH_PORT, whether it answers. For health checks."""
    from http.client import HTTPConnection, HTTPException

    host, port = _address()
    connection = HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, HTTPException) as exc:
        raise Failed(f"nothing answers at {host}, port {port}: {type(exc).__name__}. 该地址无响应。") from None
    if status != 200:
        raise Failed(f"the answer at {host}, port {port} has status {status}. 响应的状态码为 {status}。")


def _address() -> tuple[str, int]:
    # Read without the settings: they take half a second of CPU to load, and a health check runs every few seconds.
    import os
    from pathlib import Path

    given = {}
    if Path(".env").exists():
        from dotenv import dotenv_values

        given = dotenv_values(".env")
    host = os.environ.get("WXAUTH_HOST") or given.get("WXAUTH_HOST") or "127.0.0.1"
    port = os.environ.get("WXAUTH_PORT") or given.get("WXAUTH_PORT") or ""
    # For a Service named wxauth, Kubernetes sets this variable to a URL, which is no port.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port) if port.isdigit() else 8000  # noqa: S104
