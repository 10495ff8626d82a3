"""The command `wxauth`. A module has the commands of one noun, and is imported when one of them is called."""

import re
import sys
from collections.abc import Mapping
from copy import copy
from importlib import import_module
from typing import Any, Final

import click
from click import _textwrap as click_wrapping

from wxauth import __version__
from wxauth.server.core.terminal import catalogue, say, terminal_language, width

for _name, _module in list(sys.modules.items()):
    if _name.startswith("click."):  # its own sentences, which it looks up by these two names of gettext
        vars(_module).update(_=say, ngettext=lambda one, many, number: say(one if number == 1 else many))
for _module in (click.formatting, click_wrapping):
    vars(_module).update(term_len=width)  # click counts characters, and breaks Chinese within its Latin words
click_wrapping.TextWrapper.wordsep_re = re.compile("(\\s+|[（“]*(?:[!-~]+|\\S)[，。、；：）”？！…]*)")

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

        self._path = "" if self.name == "main" else f"{self.name} "

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command, which may not be imported yet."""
        command = super().get_command(ctx, cmd_name)
        return command and in_language(command, self._path + cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self._modules:
            module = import_module(f"{__name__}.{self._modules[name]}")
            found = getattr(module, name, None) or getattr(module, f"{name}_command")
            command = in_language(found, self._path + name)
        return name, command, rest

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments."""
        return click.Group.make_context(in_language(self, self._path.strip()), info_name, args, parent, **extra)


def in_language(command: click.Command, path: str) -> click.Command:
    """A command whose help is in the language of the terminal; a copy, unless that is English."""
    if terminal_language() == "en":
        return command
    texts, made = catalogue(), copy(command)
    made.help = texts.get(path or "wxauth", command.help)
    made.short_help = (made.help or "").partition("。")[0] + "。"
    made.options_metavar = say(made.options_metavar or "")
    made.params = [copy(each) for each in command.params]
    for option in made.params:
        option.type, option.metavar = copy(option.type), option.metavar and say(option.metavar)
        option.type.name = say(option.type.name)
        if isinstance(option, click.Option) and option.help:
            keys = (f"{scope} {option.opts[0]}".strip() for scope in (path, path.split()[0] if path else "", ""))
            option.help = next((texts[key] for key in keys if key in texts), option.help)
    if isinstance(made, click.Group):
        made.subcommand_metavar = say(made.subcommand_metavar or "")
        made.commands = {name: in_language(each, f"{path} {name}".strip()) for name, each in made.commands.items()}
    return made


@click.group(cls=LazyGroup, modules=MODULES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wxauth")
def main() -> None:
    """WeChat mini-program login as a service."""
