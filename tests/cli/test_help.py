"""The help texts of the commands are complete."""

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from tests.cli.tree import every_command
from tests.sweeps import Sweep
from wxauth.apps.schemas import AppChangeRequest, AppRequest
from wxauth.cli import main
from wxauth.cli.users import users
from wxauth.clients.routes import ClientChangeRequest, ClientRequest
from wxauth.events.schemas import DeliveriesQuery, NewWebhook, ReplayRequest, WebhookChange
from wxauth.users.search_queries import UsersQuery

pytestmark = pytest.mark.no_database


def test_help_explains_each_command() -> None:
    with Sweep() as sweep:
        for names, _ in every_command():
            with sweep.case("wxauth", *names):
                done = CliRunner().invoke(main, [*names, "--help"])
                assert done.exit_code == 0
                usage, explanation, *_ = done.output.split("\n\n")
                assert usage.startswith("Usage: ")
                assert explanation.startswith("  ")


@pytest.mark.parametrize(
    ("words", "body"),
    [
        ("clients add", ClientRequest),
        ("clients set", ClientChangeRequest),
        ("apps add", AppRequest),
        ("apps set", AppChangeRequest),
        ("webhooks add", NewWebhook),
        ("webhooks set", WebhookChange),
        ("webhooks replay", ReplayRequest),
        ("webhooks deliveries", DeliveriesQuery),
        ("users list", UsersQuery),
    ],
)
def test_a_command_takes_each_field_of_its_operation(words: str, body: type[BaseModel]) -> None:
    command = dict(every_command())[tuple(words.split())]
    taken = {{"no_check": "asks_wechat", "disabled": "is_enabled"}.get(it.name or "", it.name) for it in command.params}
    fixed = {"kind", "is_public"} if words.endswith("set") else {"name", "app_secret"}
    lacking = body.model_fields.keys() - fixed - taken
    assert not lacking, f"add options for {', '.join(sorted(lacking))} to `wxauth {words}`, in src/wxauth/cli"


@pytest.mark.parametrize("group", [main, users], ids=["wxauth", "users"])
def test_the_list_of_commands_shows_each_commands_own_help_line(group: click.Group) -> None:
    commands = dict(every_command(group))
    for name, shown in group.commands.items():
        assert shown.get_short_help_str(limit=200) == commands[name,].get_short_help_str(limit=200)
