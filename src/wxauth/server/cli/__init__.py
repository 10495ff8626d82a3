"""The command `wxauth`. A module has the commands of one noun, and is imported when one of them is called."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import click

from wxauth import __version__

MODULES: Final = {
    "running": {
        "serve": "Run the service in production.",
        "dev": "Run the service for development, with nothing configured.",
        "alive": "Check that the service on this machine answers.",
        "openapi": "Print the OpenAPI document.",
    },
    "upkeep": {
        "migrate": "Migrate the database schema to this version.",
        "check": "Run the health checks.",
        "sweep": "Delete expired data now.",
    },
    "keys": {
        "keys": "Manage the keys that sign access tokens and id_tokens.",
        "secret": "Manage the secret key that encrypts stored values.",
    },
    "admin": {"admin": "Log in to the administrators' console."},
    "apps": {"apps": "Manage mini-programs and other apps."},
    "clients": {"clients": "Manage services and sites that use wxauth."},
    "refusals": {"refusals": "Print refused logins, the newest first."},
    "users": {"users": "Manage users, their roles and bans."},
    "webhooks": {"webhooks": "Manage webhooks, which send events to other services."},
}
"""The commands of each module, with their lines in `wxauth --help`, which then need not import them. A test compares
both."""


class LazyGroup(click.Group):
    """A group that lists summaries, and imports the module of a command when it is called.

    Args:
        modules: The commands of each module of this package, with their summaries.
    """

    def __init__(self, *, modules: Mapping[str, Mapping[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self._modules = {name: module for module, names in modules.items() for name in names}
        for names in modules.values():
            for name, summary in names.items():
                self.add_command(click.Command(name, help=summary))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self._modules:
            module = import_module(f"{__name__}.{self._modules[name]}")
            command = getattr(module, name, None) or getattr(module, f"{name}_command")
        return name, command, rest


@click.group(cls=LazyGroup, modules=MODULES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wxauth")
def main() -> None:
    """WeChat mini-program login as a service."""
