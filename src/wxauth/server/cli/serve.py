"""`wxauth serve`."""

import click

from wxauth.server.cli.asking import Failed, read_settings


@click.command()
def serve() -> None:
    """Run the service in production. Settings come from WXAUTH_* (docs/settings.md)."""
    from wxauth.server.core.settings import InvalidSettings, Settings
    from wxauth.server.service.server import serve

    settings = read_settings(Settings)
    try:
        serve(settings)
    except InvalidSettings as exc:
        raise Failed(str(exc)) from None
