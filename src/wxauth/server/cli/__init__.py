"""The command `wxauth`. Each command is a module of its name, imported when the command is called."""

from importlib import import_module
from typing import Final

import click

from wxauth import __version__

SUMMARIES: Final = {
    "admin": "Log in to the administrators' console.",
    "alive": "Check that the service on this machine answers.",
    "apps": "Manage mini-programs and other apps.",
    "check": "Run the health checks.",
    "clients": "Manage services and sites that use wxauth.",
    "dev": "Run the service for development, with nothing configured.",
    "keys": "Manage the keys that sign access tokens and id_tokens.",
    "migrate": "Migrate the database schema to this version.",
    "openapi": "Print the OpenAPI document.",
    "refusals": "Print refused logins, the newest first.",
    "secret": "Manage the secret key that encrypts stored values.",
    "serve": "Run the service in production.",
    "sweep": "Delete expired data now.",
    "users": "Manage users, their roles and bans.",
    "webhooks": "Manage webhooks, which send events to other services.",
}
"""The help line of each command in `wxauth --help`, which then need not import them. A test compares both."""


class LazyGroup(click.Group):
    """A group that lists summaries, and imports a command only when it is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            command = getattr(import_module(f"{__name__}.{name}"), name)
        return name, command, rest


@click.group(
    cls=LazyGroup,
    commands=[click.Command(name, help=summary) for name, summary in SUMMARIES.items()],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="wxauth")
def main() -> None:
    """WeChat mini-program login as a service."""
