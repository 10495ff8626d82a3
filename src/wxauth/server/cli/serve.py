"""`wxauth serve`."""

import click

from wxauth.server.cli.failures import failures_printed
from wxauth.server.core.settings import Settings, load_settings
from wxauth.server.service import server


@click.command()
def serve() -> None:
    """Run the service in production. Settings come from WXAUTH_* (docs/settings.md)."""
    with failures_printed():
        server.serve(load_settings(Settings))
