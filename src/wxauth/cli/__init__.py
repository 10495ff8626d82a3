"""The command `wxauth`, with its help in the language of the terminal."""

import re
import sys
from collections.abc import Mapping
from copy import copy
from importlib import import_module
from inspect import cleandoc
from typing import Any, Final

import click
from click import _textwrap as click_wrapping

from wxauth import __version__
from wxauth.i18n import SOURCE, Text, lazy_gettext as _, pgettext
from wxauth.terminal import localized, terminal_language, width

_AFTER_SENTENCE: Final = re.compile(r"(?<=。)|(?<=\.)\s")
# `wxauth --help` prints the summaries without importing the modules. A test compares them with the commands' help.
MODULES: Final = {
    "running": {
        "serve": _("Run the service in production."),
        "alive": _("Check that the service on this machine responds."),
        "openapi": _("Print the OpenAPI document."),
    },
    "upkeep": {
        "migrate": _("Migrate the database schema to this version."),
        "check": _("Run the health checks."),
        "sweep": _("Delete expired data now."),
    },
    "keys": {
        "keys": _("Manage the keys that sign access tokens and id_tokens."),
        "secret": _("Manage the secret key that encrypts stored values."),
    },
    "admin": {"admin": _("Open the admin console.")},
    "apps": {"apps": _("Manage mini-programs and other apps.")},
    "clients": {"clients": _("Manage services and sites that use wxauth.")},
    "users": {"users": _("Manage users, their roles and bans.")},
    "webhooks": {"webhooks": _("Manage webhooks, which send events to other services.")},
}


def _text_of_click(message: str) -> str:
    return pgettext("click", message, terminal_language())


def _plural_of_click(singular: str, plural: str, n: int) -> str:
    return _text_of_click(singular if n == 1 else plural)


def _adapt_click() -> None:
    """Replace click's translations and its line breaks, because click has no setting for them.

    The function changes names inside click's modules. Tests of the commands in Chinese fail if click no longer uses
    these names.
    """
    for name, module in sys.modules.items():
        if name.startswith("click."):  # click's modules look up their texts with these two functions of gettext
            vars(module).update(_=_text_of_click, ngettext=_plural_of_click)
    # click counts characters. But on a terminal, a Chinese character is as wide as two Latin letters.
    for module in (click.formatting, click_wrapping):
        vars(module).update(term_len=width)
    # click's line breaks suit only text with spaces between words. With this pattern, a line may end after a word or a
    # Chinese character, but not before closing or after opening punctuation.
    click_wrapping.TextWrapper.wordsep_re = re.compile("(\\s+|[（“]*(?:[!-~]+|\\S)[，。、；：）”？！…]*)")


_adapt_click()  # called during the import of this module, because the decorators below use click's texts


class LazyGroup(click.Group):
    """A group of commands, which imports the module of a command only when the command is called."""

    def __init__(self, *, modules: Mapping[str, Mapping[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self._module_of: dict[str, str] = {}
        for module, summaries in modules.items():
            for name, summary in summaries.items():
                self._module_of[name] = module
                self.add_command(click.Command(name, help=summary))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command with its summary, which cannot run. Only `resolve_command` returns the command itself."""
        command = super().get_command(ctx, cmd_name)
        return None if command is None else in_language(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names, and import its module first."""
        name, command, remaining = super().resolve_command(ctx, args)
        if name in self._module_of:
            module = import_module(f"{__name__}.{self._module_of[name]}")
            # The function of a subcommand has a suffix, such as `import_command`, because Python itself uses names such
            # as `import` and `list`. The function of a main command, such as `serve`, has no suffix.
            function_name = f"{name}_command"
            if not hasattr(module, function_name):
                function_name = name
            command = in_language(getattr(module, function_name))
        return name, command, remaining

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments with a copy of this group whose own help is in the language of the terminal."""
        return click.Group.make_context(in_language(self), info_name, args, parent, **extra)


def in_language(command: click.Command) -> click.Command:
    """Return a copy of a command with its help in the language of the terminal; for English, the command itself."""
    if terminal_language() == SOURCE:
        return command
    translated = copy(command)
    if command.help:
        translated.help = localized(Text(cleandoc(command.help)))
        translated.short_help = _AFTER_SENTENCE.split(translated.help)[0]
    translated.options_metavar = _text_of_click(command.options_metavar or "")
    translated.params = [_parameter_in_language(parameter) for parameter in command.params]
    if isinstance(translated, click.Group):
        translated.subcommand_metavar = _text_of_click(translated.subcommand_metavar or "")
        translated.commands = {name: in_language(each) for name, each in translated.commands.items()}
    return translated


def _parameter_in_language(parameter: click.Parameter) -> click.Parameter:
    translated = copy(parameter)
    translated.type = copy(parameter.type)  # because click shares some types, such as STRING, between parameters
    translated.type.name = _text_of_click(parameter.type.name)
    if parameter.metavar:
        translated.metavar = _text_of_click(parameter.metavar)
    if isinstance(translated, click.Option) and translated.help:
        translated.help = localized(Text(translated.help))
    return translated


@click.group(cls=LazyGroup, modules=MODULES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wxauth")
def main() -> None:
    """A login service for WeChat mini-programs."""
