"""What the commands say of themselves."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from tests.sweeps import Sweep
from wxauth.server.cli import main
from wxauth.server.cli.users import users

pytestmark = pytest.mark.no_database


def every_command(command: click.Command = main, *names: str) -> Iterator[tuple[str, ...]]:
    """The names of a command and of all its subcommands."""
    yield names
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            _, subcommand, _ = command.resolve_command(context, [name])
            assert subcommand is not None
            yield from every_command(subcommand, *names, name)


def test_help_explains_each_command() -> None:
    with Sweep() as sweep:
        for names in every_command():
            with sweep.case("wxauth", *names):
                done = CliRunner().invoke(main, [*names, "--help"])
                assert done.exit_code == 0
                usage, explanation, *_ = done.output.split("\n\n")
                assert usage.startswith("Usage: ")
                assert explanation.startswith("  ")


@pytest.mark.parametrize("group", [main, users], ids=["wxauth", "users"])
def test_the_list_of_commands_shows_each_commands_own_help_line(group: click.Group) -> None:
    for name, shown in group.commands.items():
        _, command, _ = group.resolve_command(click.Context(group), [name])
        assert command
        assert shown.get_short_help_str(limit=200) == command.get_short_help_str(limit=200)
