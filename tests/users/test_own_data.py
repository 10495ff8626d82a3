"""Users can export their own data, and the audit trail is kept for a limited time."""

import asyncio
import json
from base64 import b64decode
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.types import Message
from uuid_utils.compat import uuid7

from tests.database_proxy import Proxy
from tests.fakes import APP, OTHER_APP, service_env
from tests.pictures.samples import encoded, plain
from tests.problems import problem_of
from tests.processes import Command, run
from tests.world import Client, Rows, Stage, bearer, body_of, leave, recorded
from wxauth.core.services import Services
from wxauth.core.trail import EventType
from wxauth.core.users import PROFILE_FIELDS
from wxauth.housekeeping.housekeeping import sweep
from wxauth.service.app import create_app
from wxauth.users.own_data import MAX_LARGE_DOCUMENTS
from wxauth.users.own_data_routes import EXAMPLE_OWN_DATA

ROOT_ID = "01900000-0000-7000-8000-0000000000aa"


async def export(client: Client, login: dict[str, Any]) -> httpx.Response:
    return await client.get("/v1/me/export", headers=bearer(login))


async def document_of(client: Client, login: dict[str, Any]) -> dict[str, Any]:
    return body_of(await export(client, login))


@pytest.mark.requirement("asvs-14.1.1")
async def test_the_export_of_all_stored_data_is_one_document(stage: Stage) -> None:
    client = await stage.make(consents="privacy:1", apps=[APP, OTHER_APP])
    logins = []
    for app in (APP, OTHER_APP):
        fields: dict[str, Any] = {"nickname": "小明", "consents": {"privacy": "1"}, "headers": {"User-Agent": "Phone"}}
        logins.append(await stage.login(at=client, app=app, unionid="union-alice", **fields))
    await client.post("/v1/logout", json={"refresh_token": logins[0]["refresh_token"]})
    picture = {"file": ("a.png", encoded(plain(size=(4, 4)), "PNG"))}
    uploaded = body_of(await client.post("/v1/me/avatar", files=picture, headers=bearer(logins[1])))
    await stage.rows.execute(
        "UPDATE users SET external_id = '10023', phone = '+8613800138000', roles = '{editor}',"
        " phone_verified_at = '2026-11-20T08:05:00Z'"
    )

    answer = await export(client, logins[1])
    assert answer.headers["content-disposition"] == 'attachment; filename="wxauth-export.json"'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document.keys() == EXAMPLE_OWN_DATA.keys()
    for name in ("user", "identities", "sessions", "consents"):
        shown, example = ([part[name]] if name == "user" else part[name] for part in (document, EXAMPLE_OWN_DATA))
        wrong = {*shown[0]} ^ {*example[0]}
        assert not wrong, f"change the part {name} of EXAMPLE_OWN_DATA in src/wxauth/users/own_data_routes.py: {wrong}"
    assert document["user"] == {
        "id": logins[0]["user"]["id"],
        "former_ids": [],
        "external_id": "10023",
        "former_external_ids": [],
        "unionid": "union-alice",
        "unionids": ["union-alice"],
        **dict.fromkeys(PROFILE_FIELDS),
        "nickname": "小明",
        "avatar_url": uploaded["avatar_url"],
        "phone": "+8613800138000",
        "phone_verified": True,
        "phone_verified_at": "2026-11-20T08:05:00Z",
        "roles": ["editor"],
        "status": "active",
        "created_at": "2026-11-20T08:00:00Z",
        "last_login_at": "2026-11-20T08:00:00Z",
        "last_seen_at": "2026-11-20T08:00:00Z",
        "attributes": {},
        "erase_at": None,
    }
    assert [(identity["app_id"], identity["openid"]) for identity in document["identities"]] == [
        (APP["app_id"], "openid-a1-alice"),
        (OTHER_APP["app_id"], "openid-b2-alice"),
    ]
    ended = {session["id"]: (session["ended_reason"], session["ip"]) for session in document["sessions"]}
    assert ended == {logins[0]["session_id"]: ("signed_out", "127.0.0.1"), logins[1]["session_id"]: (None, "127.0.0.1")}
    assert [(item["document"], item["ip"]) for item in document["consents"]] == [("privacy", "127.0.0.1")]
    events = sorted(event["type"] for event in document["events"])
    assert events == ["consent.given", "identity.added", "session.ended", "user.created", "user.profile_changed"]
    avatar = document["avatar"]
    assert (avatar["content_type"], Image.open(BytesIO(b64decode(avatar["content"]))).size) == ("image/jpeg", (4, 4))
    assert "session_key" not in answer.text


async def test_the_document_of_own_data_contains_events_and_names_nobody_else(stage: Stage) -> None:
    alice = await stage.login("alice")
    insert = """
        INSERT INTO events (id, type, at, actor, user_id, ip)
        VALUES (gen_random_uuid(), $1, now(), $2, $3::text::uuid, '203.0.113.7')
    """
    for kind, actor, user_id in (
        (EventType.USER_BANNED, ROOT_ID, alice["user"]["id"]),
        (EventType.USER_UNBANNED, "operator", alice["user"]["id"]),
        ("user.phone_bound", alice["user"]["id"], alice["user"]["id"]),
        ("user.erased", alice["user"]["id"], ROOT_ID),
    ):
        await stage.rows.execute(insert, kind, actor, user_id)
    answer = await export(stage.client, alice)
    events = {event["type"]: (event["actor"], event["ip"]) for event in answer.json()["events"]}
    del events["user.created"]
    assert events == {
        "user.banned": ("administrator", None),
        "user.unbanned": ("operator", "203.0.113.7"),
        "user.phone_bound": (alice["user"]["id"], "203.0.113.7"),
    }
    assert ROOT_ID not in answer.text


async def test_the_export_includes_data_under_a_former_id(stage: Stage) -> None:
    stage = await stage.replica(apps=[APP, OTHER_APP], consents="privacy:1")
    former = await stage.login(consents={"privacy": "1"})
    await stage.login(app=OTHER_APP, unionid="union-alice")
    document = await document_of(stage.client, await stage.login(unionid="union-alice"))
    assert document["user"]["former_ids"] == [former["user"]["id"]]
    events = [event["type"] for event in document["events"]]
    created = ["user.created", "user.created"]
    assert sorted(events) == ["consent.given", "consent.given", "identity.added", *created, "user.merged"]


async def test_the_export_hides_a_former_id_that_an_earlier_version_gave_back(stage: Stage) -> None:
    alice = await stage.login("alice")
    insert = """
        INSERT INTO events (id, type, at, actor, user_id, data)
        VALUES (gen_random_uuid(), 'user.merged', now(), 'operator', $1::text::uuid, $2)
    """
    data = json.dumps({"former_id": ROOT_ID, "by": "unionid"})
    await stage.rows.execute(insert, alice["user"]["id"], data)
    answer = await export(stage.client, alice)
    assert [event["data"] for event in answer.json()["events"] if event["type"] == "user.merged"] == [{"by": "unionid"}]
    assert ROOT_ID not in answer.text


async def test_the_export_is_limited_to_once_a_minute_over_all_replicas(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    replica = await stage.make()
    answers = await asyncio.gather(*(export(each, alice) for each in (stage.client, replica) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 9
    stage.clock.advance(seconds=59)
    refused = await export(replica, alice)
    problem_of(refused, "rate_limited", 429)
    assert refused.headers["retry-after"] == "1"
    await document_of(stage.client, bob)
    stage.clock.advance(seconds=1)
    await document_of(replica, alice)
    told = await recorded(stage.rows, "actor, user_id, ip", "type = 'user.exported'")
    ids = [answer["user"]["id"] for answer in (alice, bob, alice)]
    assert told == [(user_id, user_id, "127.0.0.1") for user_id in ids]


ADD_EVENTS = """
INSERT INTO events (id, type, at, actor, user_id, ip, data)
SELECT ('01900000-0000-7000-8000-' || substr(md5($1), 1, 8) || lpad(to_hex(n), 4, '0'))::uuid, 'scan.approved',
       now(), $1, $1::text::uuid,
       '203.0.113.7', jsonb_build_object('client_id', repeat('x', $3))
  FROM generate_series(1, $2) AS n
"""
"""SQL in which $1 is the user's id, $2 the number of events and $3 the length of each event."""


@pytest.mark.slow
async def test_a_large_document_is_that_of_one_moment(stage: Stage) -> None:
    alice = await stage.login("alice")
    await stage.rows.execute(ADD_EVENTS, alice["user"]["id"], 3000, 1000)
    async with stage.client.stream("GET", "/v1/me/export", headers=bearer(alice)) as answer:
        assert answer.status_code == 200
        assert "content-length" not in answer.headers
        document = json.loads(await answer.aread())
    assert len([event for event in document["events"] if event["type"] == "scan.approved"]) == 3000
    ids = [event["id"] for event in document["events"]]
    assert ids == sorted(ids)
    assert document["avatar"] is None


class SlowReader:
    """A client that reads only the head of a response until it is allowed to continue."""

    def __init__(self, services: Services, login: dict[str, Any]) -> None:
        self.has_begun = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.received = 0
        self.has_sent = False
        self.is_whole = False
        self.status = 0
        headers = [(b"host", b"auth.test"), (b"authorization", f"Bearer {login['access_token']}".encode())]
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/v1/me/export", "query_string": b""}
        scope |= {"raw_path": b"/v1/me/export", "root_path": "", "headers": headers, "client": ("127.0.0.1", 1)}
        scope |= {"http_version": "1.1", "scheme": "https", "server": ("auth.test", 443), "asgi": {"version": "3.0"}}
        self.task = asyncio.ensure_future(create_app(services)(scope, self.receive, self.send))

    async def receive(self) -> Message:
        if self.has_sent:
            await asyncio.Event().wait()
        self.has_sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.has_begun.set()
            return
        self.received += len(message.get("body", b""))
        self.is_whole = not message.get("more_body", False)
        await self.goes_on.wait()


@pytest.mark.slow
async def test_slow_readers_of_large_documents_do_not_delay_other_readers(stage: Stage) -> None:
    people = [await stage.login(person) for person in ("alice", "bob", "carol")]
    for person in people:
        await stage.rows.execute(ADD_EVENTS, person["user"]["id"], 3000, 1000)
    readers = [SlowReader(stage.services, person) for person in people[:2]]
    for reader in readers:
        await reader.has_begun.wait()
    refused = await export(stage.client, people[2])
    problem_of(refused, "rate_limited", 429)
    assert refused.headers["retry-after"] == "60"
    assert (await document_of(stage.client, await stage.login("dave")))["events"], "a small one has its place"
    assert (await leave(stage.client, people[0])).status_code == 204, "an erasure waits for no reader"
    for reader in readers:
        reader.goes_on.set()
        await reader.task
    assert [reader.status for reader in readers] == [200, 200]
    assert all(reader.received > 3_000_000 for reader in readers)


@pytest.mark.slow
async def test_a_reader_who_goes_away_leaves_nothing_behind(stage: Stage) -> None:
    alice = await stage.login("alice")
    await stage.rows.execute(ADD_EVENTS, alice["user"]["id"], 3000, 1000)
    for _ in range(MAX_LARGE_DOCUMENTS + 1):
        await stage.rows.execute("DELETE FROM attempts")
        reader = SlowReader(stage.services, alice)
        await reader.has_begun.wait()
        assert reader.status == 200
        reader.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader.task


@pytest.mark.slow
@pytest.mark.parametrize("lost_with", [b"ended_reason", b"wechat_errcode", b"content_type", b"COMMIT"])
async def test_an_export_whose_database_is_lost_says_so(stage: Stage, proxy: Proxy, lost_with: bytes) -> None:
    alice = await stage.login("alice")
    client = await stage.make(database_url=proxy.url)
    proxy.lose_next_answer(containing=lost_with)
    problem_of(await export(client, alice), "storage_unavailable", 503)
    await stage.rows.execute("DELETE FROM attempts")
    assert (await document_of(client, alice))["identities"]


async def test_a_large_export_whose_database_is_lost_breaks_off_without_an_end(stage: Stage, proxy: Proxy) -> None:
    alice = await stage.login("alice")
    await stage.rows.execute(ADD_EVENTS, alice["user"]["id"], 3000, 1000)
    reader = SlowReader(await stage.make_services(database_url=proxy.url), alice)
    await reader.has_begun.wait()
    proxy.drop()
    reader.goes_on.set()
    await reader.task
    assert reader.status == 200
    assert not reader.is_whole
    logged = [line for line in stage.log_lines() if line["level"] != "info"]
    assert [line["event"] for line in logged] == ["export_broken_off"]


@pytest.mark.process
async def test_an_operator_has_the_same_by_a_command(stage: Stage, users: Command) -> None:
    alice = await stage.login("alice")
    shown = await users("show", alice["user"]["id"], "--export")
    assert shown.returncode == 0, shown.stderr
    mine = await document_of(stage.client, alice)
    theirs = json.loads(shown.stdout)
    assert (theirs["user"], theirs["sessions"]) == (mine["user"], mine["sessions"])
    exported = await recorded(stage.rows, "actor", "type = 'user.exported'")
    assert {*exported} == {("operator",), (alice["user"]["id"],)}
    unknown = await users("show", ROOT_ID, "--export")
    assert (unknown.returncode, f"user {ROOT_ID} does not exist" in unknown.stderr) == (1, True)


# How long the audit trail is kept.


async def add_events(stage: Stage, *kinds: str, days_ago: int, ip: str | None = None, data: str = "{}") -> None:
    """Add events of this age. Tests add the oldest ones first, so that ids and times have the same order."""
    add = "INSERT INTO events (id, type, at, actor, ip, data) VALUES ($1, $2, $3, 'system', $4::text::inet, $5)"
    for kind in kinds:
        await stage.rows.execute(add, uuid7(), kind, stage.clock() - timedelta(days=days_ago), ip, data)


@pytest.mark.oldest_postgres
async def test_the_trail_is_kept_for_its_days_and_erasures_for_good(stage: Stage) -> None:
    services = await stage.make_services(events_kept_days=180)
    kept_for_good = ("user.erased", "user.erased", "user.merged")
    await add_events(stage, "user.banned", "user.roles_changed", *kept_for_good, days_ago=181)
    await add_events(stage, "user.unbanned", days_ago=179)
    await sweep(await stage.make_services(), page_size=2, pause=0)
    assert await stage.number("events") == 6, "without a limit, all"
    stage.clock.advance(minutes=1)
    await sweep(services, page_size=2, pause=0)
    kept = [row["type"] for row in await stage.rows.fetch("SELECT type FROM events")]
    assert sorted(kept) == sorted([*kept_for_good, "user.unbanned"])


@pytest.mark.oldest_postgres
async def test_addresses_become_networks(stage: Stage) -> None:
    stage = await stage.replica(addresses_kept_days=30, refresh_token_ttl=86400 * 90, consents="privacy:1")
    alice, bob = await stage.login("alice"), await stage.login("bob")
    for answer in (alice, bob):
        await stage.client.post("/v1/me/consents", json={"privacy": "1"}, headers=bearer(answer))
    await stage.rows.execute("UPDATE sessions SET ip = '203.0.113.7', expires_at = expires_at + interval '90 days'")
    await stage.rows.execute("UPDATE consents SET ip = '2001:db8:1:2::7'")
    for ip in ("203.0.113.7", "2001:db8:1:2::7", None):
        await add_events(stage, "user.banned", days_ago=0, ip=ip)
    for data in ('{"browser_ip": "203.0.113.7"}', '{"browser_ip": null}'):
        await add_events(stage, "scan.approved", days_ago=0, data=data)
    stage.clock.advance(days=29)
    await sweep(stage.services, page_size=2, pause=0)
    assert await stage.number("sessions WHERE masklen(ip) = 32") == 2, "not yet"
    await stage.refresh(bob)
    stage.clock.advance(days=2)
    await sweep(stage.services, page_size=2, pause=0)

    assert [str(row["ip"]) for row in await stage.rows.fetch("SELECT ip FROM sessions ORDER BY id")] == [
        "203.0.113.0/24",
        "127.0.0.1",
    ], "a session's age counts from its last use"
    assert {str(row["ip"]) for row in await stage.rows.fetch("SELECT ip FROM consents")} == {"2001:db8:1::/48"}
    shortened = await recorded(stage.rows, "ip", "type = 'user.banned'")
    assert {*shortened} == {("203.0.113.0/24",), ("2001:db8:1::/48",), (None,)}
    of_scans = [data["browser_ip"] for (data,) in await recorded(stage.rows, "data", "type = 'scan.approved'")]
    assert of_scans == ["203.0.113.0/24", None], "the browser's address, too"


@pytest.mark.process
async def test_the_command_sweeps_now(rows: Rows, database_url: str, tmp_path: Path) -> None:
    env = service_env(database_url, apps=[APP], events_kept_days=180, addresses_kept_days=1)
    for _ in range(2):  # the second sweep is not postponed until tomorrow
        await rows.execute("""
            INSERT INTO events (id, type, at, actor, ip) VALUES
            (gen_random_uuid(), 'user.banned', now() - interval '181 days', 'system', NULL),
            (gen_random_uuid(), 'user.banned', now() - interval '2 days', 'system', '203.0.113.7')
        """)
        swept = await asyncio.to_thread(run, "sweep", "--json", cwd=tmp_path, env=env)
        assert swept.returncode == 0, swept.stderr
        assert json.loads(swept.stdout) == {"events": 1, "addresses": 1}
