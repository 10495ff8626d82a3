"""`wxauth clients add|list|remove`, as an operator and as a program call them."""

import json
from asyncio import gather
from pathlib import Path

import click
import httpx
import pytest

from tests.fakes import Secrets
from tests.processes import Command, make_command
from tests.sweeps import swept
from tests.world import Client, LogIn, Rows
from wxauth.server.cli.clients import add_command
from wxauth.server.clients.clients import NAME_RULE
from wxauth.server.clients.models import SITE_SCOPE_NAMES, Scope

pytestmark = pytest.mark.process


@pytest.fixture
def clients(database_url: str, tmp_path: Path) -> Command:
    """Run `wxauth clients ...` on this test's database. No other setting is needed."""
    return make_command("clients", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})


async def test_a_client_that_is_added_may_ask_until_it_is_removed(
    clients: Command, client: Client, login: LogIn, secrets: Secrets
) -> None:
    token = (await login("alice"))["access_token"]
    added = await clients("add", "billing", "--json")
    assert (added.returncode, added.stderr) == (0, "")
    credentials = json.loads(added.stdout)
    assert credentials.keys() == {"client_id", "client_secret", "scopes"}
    assert credentials["client_id"] == "billing"
    auth = httpx.BasicAuth("billing", secrets.add(credentials["client_secret"]))

    assert (await client.post("/v1/introspect", data={"token": token}, auth=auth)).json()["active"] is True
    removed = await clients("remove", "billing")
    assert (removed.returncode, removed.stdout, removed.stderr) == (0, "removed billing\n", "")
    assert (await client.post("/v1/introspect", data={"token": token}, auth=auth)).status_code == 401


async def test_added_and_removed_clients_are_in_the_audit_trail(clients: Command, rows: Rows) -> None:
    for words in (("add", "billing"), ("add", "billing"), ("remove", "billing"), ("remove", "billing")):
        await clients(*words)
    events = await rows.fetch("SELECT type, actor, data->>'name' FROM events ORDER BY id")
    assert [tuple(event) for event in events] == [
        ("client.added", "operator", "billing"),
        ("client.removed", "operator", "billing"),
    ]


async def test_for_people_the_secret_is_in_a_table_with_a_warning(clients: Command, rows: Rows) -> None:
    added = await clients("add", "billing")
    assert added.returncode == 0
    shown = dict(line.split() for line in added.stdout.splitlines())
    assert shown.keys() == {"client_id", "client_secret", "scopes"}
    assert "not shown again" in added.stderr
    assert "不会再次显示" in added.stderr
    assert shown["client_secret"] not in added.stderr + repr(await rows.fetch("SELECT * FROM clients"))


async def test_the_list_names_each_client_and_no_secret(clients: Command, rows: Rows) -> None:
    await rows.execute("""
        INSERT INTO clients (name, secret_hash, created_at)
        VALUES ('ledger', sha256('a'), '2026-11-20T08:00:00Z'), ('a-rather-long-name', sha256('b'), '2026-11-21Z')
    """)
    listed = await clients("list")
    assert listed.stdout.splitlines() == [
        "CLIENT_ID           CREATED_AT                 SCOPES",
        "a-rather-long-name  2026-11-21T00:00:00+00:00  introspect,access_token",
        "ledger              2026-11-20T08:00:00+00:00  introspect,access_token",
    ]
    listed = await clients("list", "--json")
    assert json.loads(listed.stdout) == [
        {"client_id": name, "created_at": created_at, "scopes": ["introspect", "access_token"]}
        for name, created_at in (
            ("a-rather-long-name", "2026-11-21T00:00:00+00:00"),
            ("ledger", "2026-11-20T08:00:00+00:00"),
        )
    ]


async def test_a_client_has_its_initial_scopes_until_they_are_changed(clients: Command) -> None:
    added = await clients("add", "orders", "--scope", "users", "--scope", "introspect", "--scope", "users", "--json")
    assert json.loads(added.stdout)["scopes"] == ["introspect", "users"]
    done = await clients("set", "orders", "--scope", "events")
    assert (done.returncode, done.stdout, done.stderr) == (0, "scopes of orders: events\n", "")
    assert [client["scopes"] for client in json.loads((await clients("list", "--json")).stdout)] == [["events"]]


@pytest.mark.parametrize(
    "words",
    [("add", "orders", "--scope", "everything"), ("set", "orders", "--scope", "everything"), ("set", "orders")],
    ids=" ".join,
)
@pytest.mark.no_database
async def test_an_invalid_or_missing_scope_is_a_usage_error(clients: Command, words: tuple[str, ...]) -> None:
    failed = await clients(*words)
    assert failed.returncode == 2
    assert "--scope" in failed.stderr


def test_the_command_knows_every_scope() -> None:
    [option] = (option for option in add_command.params if option.name == "scopes")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == [*Scope, *SITE_SCOPE_NAMES]


@pytest.mark.parametrize(("options", "former_works"), [((), True), (("--now",), False)], ids=["", "now"])
async def test_the_former_secret_still_works_unless_the_new_secret_replaces_it_now(
    clients: Command, client: Client, secrets: Secrets, options: tuple[str, ...], former_works: bool
) -> None:
    former = json.loads((await clients("add", "billing", "--json")).stdout)
    renewed = json.loads((await clients("secret", "billing", *options, "--json")).stdout)
    assert (renewed["client_id"], renewed["scopes"]) == ("billing", ["introspect"])
    statuses = []
    for credentials in (renewed, former):
        auth = httpx.BasicAuth("billing", secrets.add(credentials["client_secret"]))
        statuses.append((await client.post("/v1/introspect", data={"token": "none"}, auth=auth)).status_code)
    assert statuses == [200, 200 if former_works else 401]


@pytest.mark.parametrize(
    "words", [("set", "billing", "--scope", "users"), ("secret", "billing"), ("remove", "billing")], ids=" ".join
)
async def test_changing_or_removing_an_unknown_client_fails(clients: Command, words: tuple[str, ...]) -> None:
    failed = await clients(*words)
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
    assert "no service client billing" in failed.stderr


async def test_without_a_client_the_list_is_empty(clients: Command) -> None:
    assert (await clients("list", "--json")).stdout == "[]\n"
    assert len((await clients("list")).stdout.splitlines()) == 1


async def test_two_simultaneous_clients_cannot_have_the_same_name(clients: Command, rows: Rows) -> None:
    done = sorted(await gather(*(clients("add", "billing", "--json") for _ in range(2))), key=lambda it: it.returncode)
    assert [it.returncode for it in done] == [0, 1]
    assert (done[1].stdout, len(done[1].stderr.splitlines())) == ("", 1)
    assert "service client billing exists already" in done[1].stderr
    assert await rows.fetchval("SELECT count(*) FROM clients") == 1


@swept("command", ["add", "remove"])
@swept("name", ["wechat", "Billing", "-billing", "bill ing", "账单", "a" * 65, "", "billing\n"])
@pytest.mark.no_database
async def test_an_invalid_name_is_a_usage_error(clients: Command, command: str, name: str) -> None:
    failed = await clients(command, "--", name)
    assert failed.returncode == 2
    assert NAME_RULE in " ".join(failed.stderr.split())


@pytest.mark.parametrize(
    "words", [["add"], ["remove"], ["list", "billing"], ["rename", "billing"], ["secret"]], ids=" ".join
)
@pytest.mark.no_database
async def test_a_wrong_call_is_status_2(clients: Command, words: list[str]) -> None:
    done = await clients(*words)
    assert done.returncode == 2
    assert "Usage" in done.stderr


async def test_a_database_that_is_away_or_not_migrated_is_said_in_one_line(
    clients: Command, empty_database_url: str
) -> None:
    for url in ("postgresql:///x?host=/nowhere", empty_database_url):
        failed = await clients("add", "billing", "--json", WXAUTH_DATABASE_URL=url)
        assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
        assert failed.stderr.startswith("WXAUTH_DATABASE_URL: ")
