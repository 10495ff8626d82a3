"""Walks the tree of `wxauth`'s commands."""

from collections.abc import Iterator

import click

from wxauth.cli import main


def every_command(command: click.Command = main, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and all its subcommands, each with the names that lead to it."""
    yield names, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            _, subcommand, _ = command.resolve_command(context, [name])
            assert subcommand is not None
            yield from every_command(subcommand, *names, name)
