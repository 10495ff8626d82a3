"""Webhooks are delivered end to end, to a real receiver that can misbehave, by several replicas."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.certificates import Authority
from tests.clock import PATIENCE
from tests.database_proxy import HURRIED, Proxy
from tests.fakes import Clock, Secrets
from tests.forward_proxy import CREDENTIALS, PASSWORD, ForwardProxy
from tests.problems import problem_of
from tests.receiver import Receiver, receiving
from tests.sweeps import Sweep
from tests.upstream import Behaviour, Upstream, abort, endless, hang, in_pieces, know_no_name, raw
from tests.world import Admin, Body, LogLines, Stage, bearer, body_of, leave, recorded, set_roles, until
from wxauth.checks.runner import check_with
from wxauth.core.clock import first_id_at
from wxauth.core.sealing import Sealer
from wxauth.core.services import Services
from wxauth.core.trail import OPERATOR
from wxauth.events import webhook_deliveries
from wxauth.events.models import DeliveryRow
from wxauth.events.placing import keep_placing, place_events
from wxauth.events.webhook_deliveries import LEASE, MAX_CONCURRENT, MAX_CONCURRENT_FOR_ONE, RETRY_SCHEDULE, Deliveries
from wxauth.events.webhook_queries import LEASE_EVENT, Priority, lease_delivery, sweep_deliveries
from wxauth.events.webhooks import Webhooks
from wxauth.housekeeping.housekeeping import Pace, sweep_other_rows
from wxauth.outbound.urls import NameResolver
from wxauth.service.build import Timeouts
from wxauth.service.resealing import reseal


@dataclass(slots=True)
class WebhookAdmin(Admin):
    """An administrator with a receiver. `await root("POST", "/orders/test")` sends a request about webhooks."""

    stage: Stage
    receiver: Receiver

    async def __call__(self, method: str, path: str = "", body: Any = None, **query: Any) -> httpx.Response:
        asked = {"method": method, "path": f"/webhooks{path}", "json": body, "params": query}
        answer = await self.ask(**asked)
        if answer.status_code == 401:  # the access token has expired, because the test has advanced the clock by hours
            self.answer = await self.stage.login("root")
            answer = await self.ask(**asked)
        return answer

    async def add(self, *types: str, name: str = "orders", url: str | None = None) -> Body:
        answer = await self("POST", "", {"name": name, "url": url or self.receiver.url, "types": types})
        assert answer.status_code == 200, answer.text
        return self.read_secret(answer)

    async def renew_secret(self) -> str:
        return self.read_secret(await self("POST", "/orders/secret"))["secret"]

    def read_secret(self, answer: httpx.Response) -> Body:
        body: Body = answer.json()
        self.stage.secrets.add_unlogged(body["secret"])
        return body

    async def deliveries(self, **query: Any) -> list[Body]:
        answer = body_of(await self("GET", "/orders/deliveries", **query))
        return answer["items"]

    async def record(self, *numbers: int, type: str = "user.banned") -> None:
        """Record events with these numbers."""
        for number in numbers:
            await self.stage.rows.execute(
                "INSERT INTO events (id, type, at, actor, user_id)"
                " VALUES ($1::text::uuid, $2, $3, 'system', $1::text::uuid)",
                event_id(number),
                type,
                time_of(number),
            )

    async def place_all_there_is(self) -> None:
        """Ignore all events so far, so that webhooks don't get them."""
        await self.stage.rows.execute("DELETE FROM events_unplaced")

    async def states(self) -> list[str]:
        """Return the states of the deliveries of all webhooks."""
        return [row["state"] for row in await self.stage.rows.fetch("SELECT state FROM deliveries ORDER BY id")]

    async def deliver(self) -> None:
        await deliver(self.stage.services)

    async def happen(self, *numbers: int, type: str = "user.banned") -> None:
        """Record events with these numbers, and deliver them."""
        await self.record(*numbers, type=type)
        await self.deliver()


@pytest.fixture
async def other_receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def root(stage: Stage, receiver: Receiver) -> WebhookAdmin:
    root = WebhookAdmin(stage.client, await stage.login("root"), stage, receiver)
    await set_roles(stage.rows, "admin")
    await root.place_all_there_is()
    return root


@pytest.fixture
def real_time(clock: Clock) -> None:
    """Set the clock to the real time, because the official library checks timestamps against it."""
    clock.advance(seconds=(datetime.now().astimezone() - clock()).total_seconds())


pytestmark = pytest.mark.settings(timeouts=Timeouts(webhooks=5))
given_up_soon = pytest.mark.settings(timeouts=Timeouts(webhooks=1.5))


async def deliver(services: Services) -> None:
    """Place the events, and send due deliveries until no delivery is left."""
    await place_events(services)
    for _ in Priority:  # an event may have waited for an event with another priority
        await services[Deliveries].start_due()
        await services[Deliveries].drain()


def events_in(receiver: Receiver) -> list[Body]:
    return [json.loads(body)["data"] for _, body in receiver.got]


def time_of(number: int) -> datetime:
    return datetime.fromisoformat("2026-11-20T08:00:00Z") + timedelta(seconds=number)


def event_id(number: int) -> str:
    return str(UUID(int=first_id_at(time_of(number)).int + number + 1))


# Messages.


@pytest.mark.usefixtures("real_time")
async def test_an_event_is_sent_signed_as_the_official_library_requires(root: WebhookAdmin) -> None:
    webhook = await root.add()
    alice = await root.stage.login("alice")
    await leave(root.client, alice)
    await root.deliver()
    verifier = Webhook(webhook["secret"])
    messages = [verifier.verify(body, headers) for headers, body in root.receiver.got]
    assert sorted(message["type"] for message in messages) == ["session.ended", "user.created", "user.erased"]
    [(headers, erased)] = [
        (headers, message)
        for (headers, _), message in zip(root.receiver.got, messages, strict=True)
        if message["type"] == "user.erased"
    ]
    event = erased["data"]
    assert (erased.keys(), erased["timestamp"]) == ({"type", "timestamp", "data"}, event["at"])
    assert event == {
        "id": headers["webhook-id"],
        "type": "user.erased",
        "at": event["at"],
        "user_id": alice["user"]["id"],
        "app_id": None,
        "actor": alice["user"]["id"],
        "data": {"former_ids": []},
    }
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("wxauth/")
    with pytest.raises(WebhookVerificationError):
        verifier.verify(root.receiver.got[0][1] + b" ", root.receiver.got[0][0])


@pytest.mark.usefixtures("real_time")
async def test_for_a_day_after_renewal_messages_are_signed_by_both_secrets(root: WebhookAdmin) -> None:
    secrets = [(await root.add())["secret"]]
    for _ in range(2):
        secrets.append(await root.renew_secret())  # noqa: PERF401
    await root.happen(1)
    [(headers, body)] = root.receiver.got

    def is_accepted(secret: str) -> bool:
        try:
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            return False
        return True

    assert [is_accepted(secret) for secret in secrets] == [False, True, True], "there is one former secret at most"
    root.stage.clock.advance(hours=24)
    await root.happen(2)
    assert len(root.receiver.got[1][0]["webhook-signature"].split(" ")) == 1


@pytest.mark.usefixtures("real_time")
async def test_a_former_secret_that_cannot_be_opened_holds_up_no_message(root: WebhookAdmin) -> None:
    await root.add()
    secret = await root.renew_secret()
    await root.stage.rows.execute("UPDATE webhooks SET former_secret = 'sealed with another key'")
    await root.happen(2)
    for headers, body in root.receiver.got:
        Webhook(secret).verify(body, headers)
    assert [line["webhook"] for line in root.stage.logged("former_webhook_secret_not_unsealed")] == ["orders"]


# Delivery and retries.


@pytest.mark.slow
async def test_replicas_share_the_work_and_send_each_event_once(root: WebhookAdmin) -> None:
    others = [await root.stage.make_services() for _ in range(3)]
    await root.add()
    await root.record(*range(60))
    await asyncio.gather(*(deliver(each) for each in (root.stage.services, *others)))
    await asyncio.gather(*(deliver(each) for each in (root.stage.services, *others)))
    assert sorted(root.receiver.ids) == [event_id(number) for number in range(60)]
    assert {delivery["state"] for delivery in await root.deliveries(limit=200)} == {"delivered"}


async def test_a_refused_delivery_is_retried_after_the_pauses_and_then_fails_for_good(root: WebhookAdmin) -> None:
    await root.add()
    root.receiver.usual = 500
    await root.record(1)
    await place_events(root.stage.services)
    [delivery] = await root.deliveries()
    assert delivery["next_at"] == delivery["at"]
    await root.deliver()
    for number, pause in enumerate(RETRY_SCHEDULE, start=1):
        [delivery] = await root.deliveries()
        assert (delivery["state"], delivery["attempts"], delivery["status"]) == ("pending", number, 500)
        waits = datetime.fromisoformat(delivery["next_at"]) - root.stage.clock()
        assert 0.9 * pause <= waits <= 1.1 * pause
        root.stage.clock.advance(seconds=waits.total_seconds() - 0.001)
        await root.deliver()
        assert len(root.receiver.got) == number, "not before its time"
        root.stage.clock.advance(seconds=0.002)
        await root.deliver()
        assert len(root.receiver.got) == number + 1
    [delivery] = await root.deliveries(state="failed")
    assert (delivery["attempts"], delivery["next_at"]) == (10, None)
    assert len(set(root.receiver.ids)) == 1
    assert len({headers["webhook-timestamp"] for headers, _ in root.receiver.got}) == 10, "each try has its own time"
    root.stage.clock.advance(days=30)
    await root.deliver()
    assert len(root.receiver.got) == 10


@pytest.mark.slow
@pytest.mark.parametrize("before", [[], [9]])
async def test_the_first_success_after_an_outage_makes_all_waiting_retries_due(
    root: WebhookAdmin, monkeypatch: pytest.MonkeyPatch, before: list[int]
) -> None:
    monkeypatch.setattr(webhook_deliveries, "RESUMED_AT_ONCE", 2)
    await root.add()
    await root.happen(*before)
    root.receiver.usual = 500
    await root.record(*range(5))
    for pause in (timedelta(), *RETRY_SCHEDULE[:6]):
        root.stage.clock.advance(seconds=1.2 * pause.total_seconds())
        await root.deliver()
    assert {delivery["attempts"] for delivery in await root.deliveries(state="pending")} == {7}
    root.receiver.usual = 200
    root.stage.clock.advance(hours=1)
    await root.deliver()
    assert len(await root.deliveries(state="delivered")) == len(before), "their pause is 14 hours"
    await root.happen(5)
    await root.deliver()
    assert len(await root.deliveries(state="delivered")) == len(before) + 6


@pytest.mark.slow
async def test_an_event_that_is_refused_among_others_keeps_its_tries(root: WebhookAdmin) -> None:
    async def refuse_the_first(request: web.Request) -> web.Response:
        return web.Response(status=500 if event_id(0) in await request.text() else 200)

    await root.add()
    root.receiver.usual = refuse_the_first
    await root.happen(0)
    root.stage.clock.advance(seconds=6)
    await root.deliver()
    for number in range(1, 30):
        root.stage.clock.advance(minutes=6)
        await root.happen(number)
        await root.deliver()
    [refused] = await root.deliveries(state="pending")
    assert refused["attempts"] <= 5


async def test_a_success_between_others_leaves_retries_their_pauses(root: WebhookAdmin) -> None:
    await root.add()
    await root.happen(0)
    root.receiver.usual = 500
    await root.happen(1)
    root.stage.clock.advance(seconds=6)
    await root.deliver()  # this is the second attempt, and a success resumes only later attempts
    [before] = await root.deliveries(state="pending")
    root.stage.clock.advance(seconds=90)  # a success is recorded at most once a minute
    root.receiver.usual = 200
    await root.happen(2)
    assert await root.deliveries(state="pending") == [before]


def test_the_pauses_are_those_of_the_contract() -> None:
    assert [pause.total_seconds() / 3600 for pause in RETRY_SCHEDULE] == [5 / 3600, 5 / 60, 0.5, 2, 5, 10, 14, 20, 24]


async def test_any_2xx_is_taken_any_other_status_retried(root: WebhookAdmin, other_receiver: Receiver) -> None:
    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=statuses[-1], headers={"Location": other_receiver.url})

    await root.add()
    root.receiver.usual, statuses = redirect, list[int]()
    for status in (200, 201, 299, 300, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503):
        statuses.append(status)
        await root.happen(status)
        delivery = (await root.deliveries(state="delivered" if status < 300 else "pending"))[0]
        assert (delivery["status"], len(root.receiver.got), other_receiver.got) == (status, len(statuses), [])


async def test_retry_after_puts_a_try_off_and_never_forward(root: WebhookAdmin) -> None:
    async def later(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": asked[-1]})

    await root.add()
    root.receiver.usual, asked = later, list[str]()
    for form, seconds in {
        **dict.fromkeys(("120", format_datetime(root.stage.clock() + timedelta(seconds=120))), 120),
        **dict.fromkeys(("1", "nonsense", "-1", "9" * 5000, "Mon, 01 Jan 2024 00:00:00 +99999999999999"), 5),
    }.items():
        asked.append(form)
        await root.happen(len(asked))
        waits = datetime.fromisoformat((await root.deliveries())[0]["next_at"]) - root.stage.clock()
        assert 0.9 * seconds - 1 <= waits.total_seconds() <= 1.1 * seconds, form[:12]


@pytest.mark.slow
@given_up_soon
@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (hang, "no response in 1.5 s"),
        (abort, "connection lost"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "answer is not HTTP"),
    ],
)
async def test_a_receiver_that_hangs_disconnects_or_speaks_no_http_is_reported_in_a_few_words(
    root: WebhookAdmin, behaviour: Behaviour, error: str
) -> None:
    async with Upstream(behaviour) as upstream:
        await root.add(url=upstream.url)
        await root.happen(1)
    [delivery] = await root.deliveries()
    assert (delivery["status"], delivery["error"]) == (None, error)


@pytest.mark.slow
async def test_a_status_in_time_is_taken_whatever_follows_and_for_however_long(root: WebhookAdmin) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    without_end = endless(head, b"10000\r\n" + b"x" * 65536 + b"\r\n")
    hasty = await root.stage.make_services(timeouts=Timeouts(webhooks=1.5))
    async with Upstream(without_end, in_pieces(head, then=hang)) as upstream, asyncio.timeout(PATIENCE):
        await root.add(url=upstream.url)
        await root.record(1, 2)
        await deliver(hasty)
    assert [delivery["attempts"] for delivery in await root.deliveries(state="delivered")] == [1, 1]


async def test_the_deliveries_of_a_killed_process_are_sent_by_another_one_within_a_minute(
    root: WebhookAdmin, proxy: Proxy
) -> None:
    await root.add()
    root.receiver.answers = ["hang"]
    killed = await root.stage.make_services(timeouts=Timeouts(webhooks=60), database_url=proxy.url)
    await root.record(1)
    await place_events(killed)
    await killed[Deliveries].start_due()
    await until(lambda: root.receiver.got)
    proxy.shut()  # like when its process is killed, it records nothing
    root.stage.clock.advance(seconds=LEASE.total_seconds() - 1)
    await root.deliver()
    assert len(root.receiver.got) == 1, "it may still be under way"
    root.stage.clock.advance(seconds=1)
    await root.deliver()
    assert root.receiver.ids == [event_id(1)] * 2
    [delivery] = await root.deliveries(state="delivered")
    assert delivery["attempts"] == 2


@pytest.mark.slow
async def test_a_database_that_goes_away_in_the_middle_costs_no_event_and_no_second_delivery(
    root: WebhookAdmin, database_url: str
) -> None:
    await root.add()
    async with Proxy(database_url) as proxy:
        is_away = asyncio.Event()

        async def lose_database(_: web.Request) -> web.Response:
            await proxy.refuse()
            is_away.set()
            return web.Response(status=204)

        replica = await root.stage.make_services(database_url=proxy.url, timeouts=Timeouts(database=HURRIED))
        root.receiver.answers = [204, lose_database]
        await root.record(*range(12))
        await place_events(replica)
        await replica[Deliveries].start_due()
        await is_away.wait()
        await proxy.accept()
        await deliver(replica)
        # the process had leased some deliveries without getting the response
        root.stage.clock.advance(seconds=LEASE.total_seconds())
        await deliver(replica)
    assert sorted(root.receiver.ids) == [event_id(number) for number in range(12)]
    assert len(await root.deliveries(state="delivered")) == 12


async def test_a_process_that_was_given_up_does_not_overwrite_anothers_outcome(root: WebhookAdmin) -> None:
    await root.add()
    slow = await root.stage.make_services(timeouts=Timeouts(webhooks=60))
    root.receiver.answers, root.receiver.usual = ["hang"], 204
    await root.record(1)
    await place_events(slow)
    await slow[Deliveries].start_due()
    await until(lambda: root.receiver.got)
    root.stage.clock.advance(seconds=LEASE.total_seconds())
    root.receiver.answers = [500]
    await root.deliver()
    root.receiver.released.set()
    await slow[Deliveries].drain()
    [delivery] = await root.deliveries()
    assert (delivery["state"], delivery["attempts"], delivery["status"]) == ("pending", 2, 500)


@pytest.mark.slow
async def test_receivers_that_hang_delay_none_and_take_a_place(root: WebhookAdmin, other_receiver: Receiver) -> None:
    patient = await root.stage.make_services(timeouts=Timeouts(webhooks=2 * PATIENCE))
    await root.add(name="hanging", url=root.receiver.url)
    for number in range(MAX_CONCURRENT):  # with the first webhook, these are more than the places
        await root.add(name=f"hanging-{number}", url=f"{root.receiver.url}/{number}")
    await root.add(name="orders", url=other_receiver.url)
    root.receiver.usual = "hang"
    await root.record(*range(20))
    await place_events(patient)
    await patient[Deliveries].start_due()
    await until(lambda: len(other_receiver.got) == 20)
    assert root.receiver.most_under_way == MAX_CONCURRENT + 1, "one of each"
    root.receiver.usual = 204
    root.receiver.released.set()


@pytest.mark.slow
async def test_a_flood_of_one_persons_events_does_not_delay_another_persons_ban(root: WebhookAdmin) -> None:
    """The receiver is slow, earlier deliveries use all its connections, and the flooding user is banned, too.

    The user's events that must be sent before the ban aren't delayed either.
    """
    patient = await root.stage.make_services(timeouts=Timeouts(webhooks=2 * PATIENCE))
    alice, bob, dora = [await root.stage.login(person) for person in ("alice", "bob", "dora")]
    await root.place_all_there_is()
    await root.add()
    for _ in range(3 * MAX_CONCURRENT_FOR_ONE):  # the events of one user are sent one after the other
        await root.client.post("/v1/logout", headers=bearer(await root.stage.login("alice")))
    for _ in range(3 * MAX_CONCURRENT_FOR_ONE):  # each event belongs to another user
        await leave(root.client, await root.stage.login("carol"))
    root.receiver.usual = "hang"
    await place_events(patient)
    await patient[Deliveries].start_due()
    await until(lambda: root.receiver.under_way == 1 + MAX_CONCURRENT_FOR_ONE)
    await root.change(dora["user"]["id"], roles=["editor"])
    for person in (alice, bob, dora):
        await root.change(person["user"]["id"], status="disabled")
    await place_events(patient)
    await patient[Deliveries].start_due()
    await until(lambda: root.receiver.under_way == 3 + MAX_CONCURRENT_FOR_ONE)
    assert {(event["type"], event["user_id"]) for event in events_in(root.receiver)[-2:]} == {
        ("user.banned", bob["user"]["id"]),
        ("user.roles_changed", dora["user"]["id"]),
    }
    root.receiver.usual = 204
    root.receiver.released.set()
    for _ in Priority:
        await patient[Deliveries].drain()
        await patient[Deliveries].start_due()
    assert {delivery["state"] for delivery in await root.deliveries(limit=100)} == {"delivered"}


@pytest.mark.oldest_postgres
async def test_410_disables_a_webhook_whose_deliveries_wait(root: WebhookAdmin) -> None:
    await root.add()
    root.receiver.usual = 410
    await root.happen(1)
    assert (await root("GET", "/orders")).json()["is_enabled"] is False
    await root.record(2)
    root.stage.clock.advance(hours=1)
    await root.deliver()
    assert root.receiver.ids == [event_id(1)], "what waits is not sent, and what happens meanwhile is not queued"
    root.receiver.usual = 204
    assert (await root("POST", "/orders/test")).json()["status"] == 204
    assert (await root("POST", "/orders/replay", {"event_id": event_id(2)})).json() == {"replayed": 1}
    await root.deliver()
    assert len(await root.deliveries(state="pending")) == 2, "a replay waits too"
    assert (await root("PATCH", "/orders", {"is_enabled": True})).json()["is_enabled"] is True
    await root.deliver()
    assert sorted(delivery["event_id"] for delivery in await root.deliveries(state="delivered")) == [
        event_id(1),
        event_id(2),
    ]
    told = [("webhook.added", root.id), ("webhook.disabled", "system"), ("webhook.changed", root.id)]
    assert await recorded(root.stage.rows, "type, actor", "type LIKE 'webhook.%'") == told


@pytest.mark.oldest_postgres
async def test_an_event_reaches_its_webhook_soon_after_its_commit_without_anybody_asking(root: WebhookAdmin) -> None:
    await root.add()
    keeping = asyncio.gather(keep_placing(root.stage.services), root.stage.services[Deliveries].keep_delivering())
    try:
        await root.stage.login("alice")
        await until(lambda: root.receiver.got)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


# Administration.


async def test_a_webhook_is_added_read_changed_and_removed(root: WebhookAdmin) -> None:
    added = await root.add("user.erased")
    assert added.keys() == {"name", "url", "types", "is_enabled", "created_at", "secret"}
    assert added["secret"].startswith("whsec_")
    shown = {name: value for name, value in added.items() if name != "secret"}
    assert shown == {
        "name": "orders",
        "url": root.receiver.url,
        "types": ["user.erased"],
        "is_enabled": True,
        "created_at": "2026-11-20T08:00:00Z",
    }
    listed = await root("GET")
    assert (listed.json(), listed.headers["cache-control"]) == ({"items": [shown], "next_cursor": None}, "no-store")
    assert (await root("GET", "/orders")).json() == shown
    changed = {**shown, "types": [], "is_enabled": False, "url": root.receiver.url + "/2"}
    asked = {"types": [], "is_enabled": False, "url": root.receiver.url + "/2"}
    assert (await root("PATCH", "/orders", asked)).json() == changed
    assert (await root("PATCH", "/orders", {"types": None})).json() == changed
    assert (await root("DELETE", "/orders")).status_code == 204
    problem_of(await root("GET", "/orders"), "not_found", 404)


async def test_only_one_of_several_simultaneous_webhooks_gets_the_same_name(root: WebhookAdmin) -> None:
    body = {"name": "orders", "url": root.receiver.url}
    answers = await asyncio.gather(*(root("POST", "", body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    for answer in answers:
        if answer.status_code == 200:
            root.read_secret(answer)
        else:
            problem_of(answer, "name_taken", 409)


async def test_an_invalid_webhook_is_refused(root: WebhookAdmin) -> None:
    with Sweep() as sweep:
        for field, value in [
            ("types", ["client.added"]),
            ("url", "ftp://127.0.0.1/"),
            ("url", "http://"),
            ("url", "/hook"),
            ("url", "http://user@127.0.0.1/"),
            ("url", "http://user:password@127.0.0.1/"),
            ("url", "http://@127.0.0.1/"),
            ("url", "https://example.com/\\@127.0.0.1/"),
            ("url", "https://exam ple.com/"),
            ("url", "https://xn--a/"),
            ("url", "http://8.8.8.8/"),
            ("url", "http://127.0.0.1:0/"),
            ("url", "http://127.0.0.1:65536/"),
            ("url", "http://no-such-host.invalid/"),
        ]:
            with sweep.case(field, value):
                body = {"name": "orders", "url": root.receiver.url, field: value}
                answer = await root("POST", "", body)
                problem_of(answer, "invalid_request", 422)
                assert {error["field"] for error in answer.json()["errors"]} == {field}
    assert (await root("GET")).json()["items"] == []


async def test_the_refusal_of_a_url_with_a_space_or_a_backslash_says_so(root: WebhookAdmin) -> None:
    for url in ("https://exam ple.com/", "https://example.com/\\hook"):
        refused = problem_of(await root("POST", "", {"name": "orders", "url": url}), "invalid_request", 422)
        (error,) = refused["errors"]
        assert "without spaces or backslashes" in error["message"]


@pytest.mark.slow
@pytest.mark.requirement("asvs-13.2.4")
async def test_no_url_reaches_link_local_or_metadata_addresses_in_any_form(root: WebhookAdmin) -> None:
    await root.add()
    hosts = [
        *("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.254.169.254."),
        *("0xa9fea9fe.", "0.0.0.0", "0", "255.255.255.255", "224.0.0.1", "100.100.100.200", "[::]", "[fe80::1%25lo]"),
        *("[ff02::1]", "[fd00:ec2::254]", "[fd20:ce::254]", "[fd00:c1::a9fe:a9fe]", "[::ffff:169.254.169.254]"),
        *("[::169.254.169.254]", "[::ffff:0:169.254.169.254]", "[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::1]"),
        "[64:ff9b:1:a9fe:a9:fe00:a00:1]",  # with a prefix of 48 bits
        "[64:ff9b:1:a9:fe:a9fe:a00:1]",  # with a prefix of 56 bits
        "[64:ff9b:1:0:64:6464:c800:1]",  # with a prefix of 64 bits
        *("\N{CIRCLED DIGIT ONE}69.254.169.254", "169\N{IDEOGRAPHIC FULL STOP}254.169.254"),
    ]
    with Sweep() as sweep:
        for scheme in ("https", "http"):
            for host in hosts:
                with sweep.case(scheme, host):
                    url = f"{scheme}://{host}/latest/meta-data"
                    problem_of(await root("POST", "", {"name": "bad", "url": url}), "invalid_request", 422)
                    problem_of(await root("PATCH", "/orders", {"url": url}), "invalid_request", 422)


@pytest.mark.slow
@given_up_soon
@pytest.mark.usefixtures("real_time")
async def test_a_test_message_returns_its_outcome(root: WebhookAdmin) -> None:
    secret = (await root.add())["secret"]
    tried = (await root("POST", "/orders/test")).json()
    assert (tried.keys(), tried["status"]) == ({"status", "milliseconds"}, 204)
    [(headers, body)] = root.receiver.got
    message = Webhook(secret).verify(body, headers)
    assert (message["type"], message["data"]["type"], message["data"]["data"]) == ("webhook.test", "webhook.test", {})
    assert UUID(headers["webhook-id"]).version == 7
    root.receiver.answers = [503, "hang"]
    assert (await root("POST", "/orders/test")).json()["status"] == 503
    assert (await root("POST", "/orders/test")).json() == {"status": None, "error": "no response in 1.5 s"}
    # wxauth accepts this URL because it uses https
    await root.add(name="away", url="https://no-such-host.invalid/hook")
    assert (await root("POST", "/away/test")).json() == {"status": None, "error": "host not found"}
    assert await root.stage.number("deliveries") == 0


async def test_deliveries_are_listed_page_by_page_and_by_state(root: WebhookAdmin) -> None:
    await root.add()
    root.receiver.answers = [500]
    await root.happen(0)
    await root.happen(*range(1, 6))
    newest_first = [event_id(number) for number in reversed(range(6))]
    listed = await root.deliveries()
    assert [delivery["event_id"] for delivery in listed] == newest_first
    assert listed[0].keys() == DeliveryRow.model_fields.keys()
    seen, cursor = [], ""
    while cursor is not None:
        page = (await root("GET", "/orders/deliveries", limit=2, cursor=cursor)).json()
        seen += [delivery["event_id"] for delivery in page["items"]]
        cursor = page["next_cursor"]
    assert seen == newest_first
    assert [delivery["event_id"] for delivery in await root.deliveries(state="pending")] == [event_id(0)]
    assert len(await root.deliveries(state="delivered")) == 5
    assert await root.deliveries(state="failed") == []
    problem_of(await root("GET", "/orders/deliveries", state="lost"), "invalid_request", 422)


async def test_events_are_sent_again_with_the_ids_they_had(root: WebhookAdmin, log_lines: LogLines) -> None:
    await root.happen(1, 2)
    await root.add("user.banned")
    await root.record(3)
    await root.happen(4, type="user.unbanned")
    assert (await root("POST", "/orders/replay", {"event_id": event_id(3)})).json() == {"replayed": 1}
    await root.deliver()
    assert root.receiver.ids == [event_id(3)] * 2
    (logged,) = (line for line in log_lines() if line["event"] == "webhook_replayed")
    assert (logged["webhook"], logged["events"], logged["actor"]) == ("orders", 1, root.answer["user"]["id"])
    since = {"since": "2026-11-20T16:00:02+08:00"}
    assert (await root("POST", "/orders/replay", since)).json() == {"replayed": 2}, "of the types that it wants"
    await root.deliver()
    assert sorted(root.receiver.ids) == [event_id(2), *[event_id(3)] * 3]
    assert (await root("POST", "/orders/replay", {"event_id": event_id(4)})).json() == {"replayed": 0}
    problem_of(await root("POST", "/orders/replay", {"event_id": event_id(9)}), "not_found", 404)
    before_all_time = "0001-01-01T00:00:00+14:00"
    times = ("yesterday", "2026-11-20T08:00:00", before_all_time)
    for body in (*({"since": time} for time in times), {"event_id": "x"}):
        problem_of(await root("POST", "/orders/replay", body), "invalid_request", 422)
    for body in ({}, {"event_id": event_id(3), **since}):
        answer = await root("POST", "/orders/replay", body)
        problem_of(answer, "invalid_request", 422)
        assert "Must have either event_id or since" in answer.text


@pytest.mark.oldest_postgres
async def test_replaying_since_a_time_finds_events_committed_late(root: WebhookAdmin) -> None:
    for number in (10, 5, 6, 9, 8, 7, 11):
        await root.record(number)
        await place_events(root.stage.services)
    await root.record(12, type="site.authorized")
    await root.add()
    for since, replayed in ((10, 2), (9, 3), (5, 7)):
        webhooks = root.stage.services[Webhooks]
        assert await webhooks.replay("orders", by=OPERATOR, since=time_of(since), page_size=2) == replayed


# Retention.


@pytest.mark.oldest_postgres
@pytest.mark.usefixtures("real_time")
async def test_a_secret_is_stored_sealed_and_can_be_resealed(root: WebhookAdmin) -> None:
    await root.add()
    secret = await root.renew_secret()
    assert secret.removeprefix("whsec_") not in json.dumps(
        [repr(row) for row in await root.stage.rows.fetch("TABLE webhooks")]
    )
    former_key = root.stage.services.settings.secret_keys[0]
    done = await reseal(root.stage.services.database, Sealer([bytes(32), former_key]), now=root.stage.clock())
    assert (done.webhook_secrets, done.not_opened) == (1, 0)
    sealed = await root.stage.rows.fetchrow("SELECT secret, former_secret FROM webhooks")
    assert all(value.startswith(Sealer([bytes(32)]).prefix) for value in sealed)


async def test_a_secret_that_no_key_opens_is_reported_by_the_test_and_by_the_deliveries(root: WebhookAdmin) -> None:
    await root.add()
    await root.stage.rows.execute("UPDATE webhooks SET secret = $1", b"sealed with a key that is lost")
    tried = await root("POST", "/orders/test")
    assert (tried.status_code, tried.json()) == (200, {"status": None, "error": "the secret can't be decrypted"})
    await root.happen(1)
    [delivery] = await root.deliveries()
    assert (delivery["state"], delivery["error"], root.receiver.got) == ("pending", "the secret can't be decrypted", [])


async def test_settled_deliveries_are_kept_for_30_days_and_pending_ones_for_longer(root: WebhookAdmin) -> None:
    await root.add()
    root.receiver.answers = [500]
    await root.happen(1)
    await root.happen(2)
    root.stage.clock.advance(days=30)
    await sweep_other_rows(root.stage.services, Pace(1, 0))
    assert len(await root.states()) == 2
    root.stage.clock.advance(seconds=1)
    await sweep_other_rows(root.stage.services, Pace(1, 0))
    assert await root.states() == ["pending"]


async def test_the_sweep_does_not_hold_up_pending_deliveries(root: WebhookAdmin) -> None:
    database, now = root.stage.services.database, root.stage.clock()
    await root.add()
    await root.record(1)
    await place_events(root.stage.services)
    receiver_id = await root.stage.rows.fetchval("SELECT id FROM webhooks")
    async with database.begin() as sweeping:
        assert await sweeping.run(sweep_deliveries.statement, before=first_id_at(now), size=10) == 0
        leased = await lease_delivery(database, receiver_id, Priority.BAN, now=now, until=now + LEASE)
    assert leased is not None


@pytest.mark.oldest_postgres
async def test_pending_deliveries_are_deleted_with_their_webhook(root: WebhookAdmin, other_receiver: Receiver) -> None:
    await root.add()
    await root.record(*range(5))
    await place_events(root.stage.services)
    await root("DELETE", "/orders")
    await root.add(name="orders", url=other_receiver.url)
    await root.deliver()
    assert (root.receiver.got, other_receiver.got) == ([], [])
    await sweep_other_rows(root.stage.services, Pace(2, 0))
    assert await root.states() == []


async def test_deliveries_are_counted_and_the_oldest_pending_one_is_shown(root: WebhookAdmin) -> None:
    await root.add()
    root.receiver.answers = [204, 500]
    await root.happen(1)
    await root.happen(2)
    root.stage.clock.advance(seconds=60)
    text = (await root.client.get("/metrics")).text
    assert 'wxauth_webhook_deliveries_total{outcome="delivered",webhook="orders"} 1.0' in text
    assert 'wxauth_webhook_deliveries_total{outcome="retried",webhook="orders"} 1.0' in text
    assert "wxauth_webhook_oldest_pending_seconds 60.0" in text
    await root("PATCH", "/orders", {"is_enabled": False})
    root.stage.clock.advance(seconds=60)
    assert "wxauth_webhook_oldest_pending_seconds 0.0" in (await root.client.get("/metrics")).text


async def check_line(services: Services) -> tuple[str, str] | None:
    lines = {result.name: result for result in await check_with(services.settings, clock=services.clock)}
    line = lines.get("webhooks")
    return None if line is None else (line.level, line.text)


@pytest.mark.slow
async def test_the_check_reports_a_webhook_that_is_disabled_or_stuck(root: WebhookAdmin) -> None:
    assert await check_line(root.stage.services) is None
    await root.add()
    root.receiver.answers = [204]
    root.receiver.usual = 500
    await root.happen(1)
    assert await check_line(root.stage.services) == (
        "ok",
        "1 webhooks, none of which has been failing for an hour or more",
    )
    await root.happen(2)
    root.stage.clock.advance(hours=1)
    assert (await check_line(root.stage.services) or ("",))[0] == "ok"
    root.stage.clock.advance(seconds=1)
    level, message = await check_line(root.stage.services) or ("", "")
    assert (level, "wxauth webhooks test orders" in message) == ("bad", True)
    await root("PATCH", "/orders", {"is_enabled": False})
    level, message = await check_line(root.stage.services) or ("", "")
    assert (level, "wxauth webhooks set orders --enable" in message) == ("note", True)


async def test_the_events_of_one_user_are_first_sent_in_order_whatever_their_priorities(root: WebhookAdmin) -> None:
    await root.add()
    alice = await root.stage.login("alice", nickname="A")
    await root.client.patch("/v1/me", json={"nickname": "Alice"}, headers=bearer(alice))
    await root.change(alice["user"]["id"], status="disabled")
    await root.change(alice["user"]["id"], status="active")
    await root.deliver()
    in_order = ["user.created", "user.profile_changed", "user.banned", "session.ended", "user.unbanned"]
    assert [event["type"] for event in events_in(root.receiver)] == in_order
    assert (await root("POST", "/orders/replay", {"since": "2026-01-01T00:00:00Z"})).json() == {"replayed": 5}
    await root.deliver()
    assert [event["type"] for event in events_in(root.receiver)] == 2 * in_order


async def test_a_first_try_that_fails_holds_back_nothing_and_a_lost_one_a_users_events(root: WebhookAdmin) -> None:
    await root.add("user.created", "user.banned")
    alice = (await root.stage.login("alice"))["user"]["id"]
    await place_events(root.stage.services)
    webhook_id, now = await root.stage.rows.fetchval("SELECT id FROM webhooks"), root.stage.clock()
    lease = {"receiver_id": webhook_id, "priority": Priority.ORDINARY, "now": now, "until": now + LEASE}
    assert await root.stage.services.database.row(LEASE_EVENT, **lease)
    bob = (await root.stage.login("bob"))["user"]["id"]
    root.receiver.answers = [500]
    for user_id in (alice, bob):
        await root.change(user_id, status="disabled")
    await root.deliver()
    told = [("user.created", bob), ("user.banned", bob)]
    assert [(event["type"], event["user_id"]) for event in events_in(root.receiver)] == told
    root.stage.clock.advance(seconds=1 + LEASE.total_seconds())
    await root.deliver()
    events = [(event["type"], event["user_id"]) for event in events_in(root.receiver)][len(told) :]
    # The second attempt and the first attempt of the next event go out together, because only first attempts are
    # ordered.
    assert sorted(events) == sorted([("user.created", alice), ("user.created", bob), ("user.banned", alice)])


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_a_webhook_goes_through_the_proxy_which_alone_knows_its_name(
    root: WebhookAdmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Secrets
) -> None:
    secrets.add(PASSWORD)
    authority, name = Authority(tmp_path), "hooks.example.com"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setattr(NameResolver, "resolve", know_no_name)
    async with (
        Upstream(raw(NO_CONTENT), tls=authority.server(name)) as upstream,
        ForwardProxy(hosts={name: "127.0.0.1"}) as proxy,
    ):
        root.client = await root.stage.make(receivers_proxy=proxy.url)
        for local in ("localhost", "orders", "orders.local", "db.internal", "127.0.0.1", "169.254.169.254"):
            refused = await root("POST", "", {"name": "local", "url": f"https://{local}/hook"})
            problem = problem_of(refused, "invalid_request", 422)
            assert problem["errors"][0]["field"] == "url"
        await root.add(url=f"https://{name}:{upstream.port}/hook")
        assert (await root("POST", "/orders/test")).json()["status"] == 204
        assert [head.split()[1] for head in proxy.heads] == [f"{name}:{upstream.port}"]
        root.client = await root.stage.make(receivers_proxy=proxy.url.replace(CREDENTIALS, "somebody:else"))
        told = (await root("POST", "/orders/test")).json()
        assert told["error"] == "can't connect through the proxy: the proxy returned status 407"
