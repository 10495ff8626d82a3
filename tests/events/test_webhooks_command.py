"""Operators and programs call `wxauth webhooks`."""

import json
from pathlib import Path

import pytest
from aiohttp import web

from tests.fakes import APP, Secrets, service_env
from tests.processes import Command, make_command
from tests.receiver import Receiver
from tests.world import LogIn, Rows, recorded
from wxauth.core.services import Services
from wxauth.events.placing import place_events
from wxauth.events.webhook_deliveries import Deliveries

pytestmark = pytest.mark.process


@pytest.fixture
def webhooks(database_url: str, tmp_path: Path, secrets: Secrets) -> Command:
    """A function that runs `wxauth webhooks` on this test's database."""
    env = service_env(database_url, apps=[APP], issuer="https://auth.test")
    return make_command("webhooks", cwd=tmp_path, env=env)


async def moved(_: web.Request) -> web.StreamResponse:
    return web.Response(status=308, headers={"Location": "https://www.shop.example.com/hook/"})


async def test_a_webhook_is_added_tried_changed_and_removed(webhooks: Command, receiver: Receiver, rows: Rows) -> None:
    added = await webhooks("add", "orders", receiver.url, "--type", "user.erased", "--json")
    assert (added.returncode, added.stderr) == (0, "")
    printed = json.loads(added.stdout)
    assert printed.keys() == {"name", "url", "types", "is_enabled", "created_at", "secret"}
    assert printed["secret"].startswith("whsec_")
    taken = await webhooks("add", "orders", receiver.url)
    assert (taken.returncode, "webhook orders already exists" in taken.stderr) == (1, True)
    listed = json.loads((await webhooks("list", "--json")).stdout)
    hidden = {name: value for name, value in printed.items() if name != "secret"}
    assert listed == {"items": [hidden], "next_cursor": None}
    tried = await webhooks("test", "orders", "--json")
    assert (tried.returncode, json.loads(tried.stdout)["status"]) == (0, 204)
    receiver.usual = 500
    tried = await webhooks("test", "orders")
    assert (tried.returncode, tried.stdout.split()[0], len(tried.stderr.splitlines())) == (1, "500", 1)
    receiver.usual = moved
    tried = await webhooks("test", "orders")
    assert (tried.returncode, len(tried.stderr.splitlines())) == (1, 1)
    assert "returned 308 to https://www.shop.example.com/hook/. wxauth doesn't follow redirects" in tried.stderr
    changed = await webhooks("set", "orders", "--all-types", "--disable")
    assert changed.stdout == f"orders: disabled, URL: {receiver.url}, event types: all\n"
    renewed = await webhooks("secret", "orders")
    assert "shown only once" in renewed.stderr
    assert printed["secret"] not in renewed.stdout
    assert (await webhooks("remove", "orders")).stdout == "removed orders\n"
    failed = await webhooks("set", "orders", "--enable")
    assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
    assert "webhook orders does not exist" in failed.stderr
    refused = await webhooks("add", "orders", "https://169.254.169.254/")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert refused.stderr.startswith("url: ")
    assert await recorded(rows, "type, actor") == [
        (f"webhook.{act}", "operator") for act in ("added", "changed", "secret_renewed", "removed")
    ]


async def test_deliveries_are_listed_and_sent_again(
    webhooks: Command, receiver: Receiver, services: Services, login: LogIn
) -> None:
    await webhooks("add", "orders", receiver.url)
    await login("alice")
    await place_events(services)
    await services[Deliveries].start_due()
    await services[Deliveries].drain()
    [delivery] = json.loads((await webhooks("deliveries", "orders", "--json")).stdout)["items"]
    assert (delivery["type"], delivery["state"], delivery["status"]) == ("user.created", "delivered", 204)
    assert (await webhooks("deliveries", "orders")).stdout.splitlines()[1].split()[:5] == [
        delivery["event_id"],
        "user.created",
        "delivered",
        "1",
        "204",
    ]
    again = await webhooks("replay", "orders", "--event", delivery["event_id"], "--json")
    assert json.loads(again.stdout) == {"replayed": 1}
    since = await webhooks("replay", "orders", "--since", "2020-01-01T00:00:00Z")
    assert since.stdout == "events to be sent again: 1\n"
    assert json.loads((await webhooks("deliveries", "orders", "--state", "delivered", "--json")).stdout)["items"] == []


@pytest.mark.parametrize(
    "words",
    [
        ("add", "Orders", "https://example.com"),
        ("add", "orders", "https://example.com", "--type", "user_banned"),
        ("set", "orders"),
        ("set", "orders", "--all-types", "--type", "user_banned"),
        ("replay", "orders"),
        ("replay", "orders", "--since", "yesterday"),
        ("replay", "orders", "--since", "2026-11-20T08:00:00"),
    ],
    ids=" ".join,
)
@pytest.mark.no_database
async def test_a_wrong_call_is_status_2(webhooks: Command, words: tuple[str, ...]) -> None:
    assert (await webhooks(*words)).returncode == 2
