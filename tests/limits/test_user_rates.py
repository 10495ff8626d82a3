"""The limits of a user in an hour, over all replicas: name and picture changes, consents, uploads."""

import asyncio
from dataclasses import dataclass
from io import BytesIO

import httpx
import pytest
from PIL import Image

from tests.fakes import OTHER_APP, Clock, WeChatByRespx
from tests.problems import problem_of
from tests.world import Body, LogIn, LogLines, MakeClient, MakeServices, Rows, bearer, leave
from wxauth.server.core.services import Services

CHANGES, CONSENTS, PICTURES = 60, 20, 20


@dataclass(frozen=True)
class Replicas:
    """Two replicas, as mini-programs ask them."""

    clients: list[httpx.AsyncClient]
    services: Services
    log_in: LogIn

    async def change(self, login: Body, *, replica: int = 0, **fields: object) -> httpx.Response:
        return await self.clients[replica].patch("/v1/me", json=fields, headers=bearer(login))

    async def agree(self, login: Body, **documents: str) -> httpx.Response:
        return await self.clients[0].post("/v1/me/consents", json=documents, headers=bearer(login))

    async def withdraw(self, login: Body, document: str) -> int:
        return (await self.clients[0].delete(f"/v1/me/consents/{document}", headers=bearer(login))).status_code

    async def erase(self, login: Body) -> None:
        assert (await leave(self.clients[0], login)).status_code == 204

    async def upload(self, login: Body, file: bytes) -> httpx.Response:
        return await self.clients[0].post("/v1/me/avatar", files={"file": ("a", file)}, headers=bearer(login))


@pytest.fixture
async def replicas(make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx) -> Replicas:
    made = [await make_services(consents="privacy:2026-05,terms:3", access_token_ttl=86400) for _ in range(2)]
    clients = [make_client(services) for services in made]
    return Replicas(clients, made[0], LogIn(clients[0], wechat))


def refused(answer: httpx.Response, *, retry_after: int = 3600) -> None:
    problem_of(answer, "rate_limited", 429)
    assert int(answer.headers["retry-after"]) == retry_after


def picture(shade: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "JPEG")
    return out.getvalue()


# Names and picture URLs.


@pytest.mark.slow
async def test_a_user_changes_name_and_picture_sixty_times_an_hour(replicas: Replicas, clock: Clock) -> None:
    alice = await replicas.log_in()
    for n in range(CHANGES):
        fields = {"nickname": f"Alice {n}"} if n % 2 else {"avatar_url": f"https://a.example/{n}.png"}
        assert (await replicas.change(alice, replica=n % 2, **fields)).status_code == 200
    clock.advance(minutes=59, seconds=59)
    refused(await replicas.change(alice, nickname="Alice"), retry_after=1)
    refused(await replicas.change(alice, avatar_url=None), retry_after=1)
    assert (await replicas.log_in())["user"]["nickname"] == f"Alice {CHANGES - 1}"
    assert (await replicas.change(await replicas.log_in("bob"), nickname="Bob")).status_code == 200
    clock.advance(seconds=1)
    assert (await replicas.change(alice, nickname="Alice")).status_code == 200


async def test_a_change_without_effect_does_not_count(replicas: Replicas, rows: Rows) -> None:
    alice = await replicas.log_in(nickname="Alice")
    for _ in range(CHANGES + 1):
        assert (await replicas.change(alice, nickname="Alice", avatar_url=None)).status_code == 200
    await replicas.log_in(nickname="Alice")
    assert await rows.fetchval("SELECT count(*) FROM attempts") == 0


@pytest.mark.slow
async def test_changes_at_once_are_no_more_than_sixty(replicas: Replicas) -> None:
    alice = await replicas.log_in()
    answers = await asyncio.gather(*(replicas.change(alice, replica=n % 2, nickname=f"Alice {n}") for n in range(70)))
    assert sorted(answer.status_code for answer in answers) == [200] * CHANGES + [429] * 10


@pytest.mark.slow
async def test_a_login_with_one_name_more_succeeds_and_keeps_the_former_name(
    replicas: Replicas, log_lines: LogLines, clock: Clock
) -> None:
    alice = await replicas.log_in()
    for n in range(CHANGES - 1):
        assert (await replicas.log_in(nickname=f"Alice {n}"))["user"]["nickname"] == f"Alice {n}"
    assert (await replicas.change(alice, nickname="Alice")).status_code == 200
    fields = {"nickname": "Mallory", "avatar_url": "https://a.example/1.png"}
    user = (await replicas.log_in(**fields))["user"]
    assert (user["nickname"], user["avatar_url"]) == ("Alice", None)
    refused(await replicas.change(alice, nickname="Mallory"))
    (line,) = [line for line in log_lines() if line["event"] == "login_without_profile"]
    assert (line["fields"], line["reason"]) == (["nickname", "avatar_url"], "rate_limited")
    assert "Mallory" not in str(line)
    clock.advance(hours=1)
    assert (await replicas.log_in(nickname="Mallory"))["user"]["nickname"] == "Mallory"


# Consents.


@pytest.mark.slow
async def test_a_user_gives_twenty_consents_an_hour_and_withdraws_any_number(replicas: Replicas, clock: Clock) -> None:
    alice = await replicas.log_in()
    assert (await replicas.agree(alice, terms="3")).status_code == 200
    for _ in range(CONSENTS - 1):
        assert (await replicas.agree(alice, privacy="2026-05", terms="3")).status_code == 200
        assert await replicas.withdraw(alice, "privacy") == 204
    refused(await replicas.agree(alice, privacy="2026-05"))
    assert (await replicas.agree(alice, terms="3")).status_code == 200, "it is no new one"
    due = (await replicas.log_in(consents={"privacy": "2026-05"}))["user"]["consents_due"]
    assert due == [{"document": "privacy", "version": "2026-05"}]
    assert await replicas.withdraw(alice, "terms") == 204
    clock.advance(hours=1)
    assert (await replicas.agree(alice, privacy="2026-05", terms="3")).status_code == 200


async def test_a_request_with_a_refused_consent_stores_no_consent(replicas: Replicas, rows: Rows) -> None:
    alice = await replicas.log_in()
    for _ in range(CONSENTS - 1):
        assert (await replicas.agree(alice, privacy="2026-05")).status_code == 200
        assert await replicas.withdraw(alice, "privacy") == 204
    refused(await replicas.agree(alice, privacy="2026-05", terms="3"))
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'consent.given'") == CONSENTS - 1
    assert (await replicas.agree(alice, terms="3")).status_code == 200


# Pictures.


async def test_a_user_uploads_twenty_pictures_an_hour(replicas: Replicas, clock: Clock) -> None:
    alice = await replicas.log_in()
    for shade in range(PICTURES):
        assert (await replicas.upload(alice, picture(shade))).status_code == 200
    refused(await replicas.upload(alice, picture(99)))
    assert (await replicas.change(alice, nickname="Alice")).status_code == 200
    assert (await replicas.upload(await replicas.log_in("bob"), picture(0))).status_code == 200
    clock.advance(hours=1)
    assert (await replicas.upload(alice, picture(99))).status_code == 200


# Counts outlive the user.


@pytest.mark.slow
@pytest.mark.parametrize("unionid", [None, "o6_bmasdasdsad6_2sgVt7hMZOPfL"], ids=["openid", "unionid"])
async def test_erasing_oneself_does_not_reset_the_limit_of_name_changes(
    replicas: Replicas, unionid: str | None, clock: Clock
) -> None:
    first = await replicas.log_in(unionid=unionid)
    for n in range(CHANGES // 2):
        assert (await replicas.change(first, nickname=f"Alice {n}")).status_code == 200
        assert (await replicas.log_in(unionid=unionid, nickname=f"Alice, {n}"))["user"]["nickname"] == f"Alice, {n}"
    await replicas.erase(first)
    again = await replicas.log_in(unionid=unionid, nickname="Alice")
    assert again["is_new_user"] is True
    refused(await replicas.change(again, nickname="Mallory"))
    assert (await replicas.log_in(unionid=unionid, nickname="Mallory"))["user"]["nickname"] == "Alice"
    clock.advance(hours=1)
    assert (await replicas.change(again, nickname="Mallory")).status_code == 200


@pytest.mark.slow
async def test_a_user_of_two_apps_has_one_count(replicas: Replicas) -> None:
    unionid = "o6_bmasdasdsad6_2sgVt7hMZOPfL"
    here, there = await replicas.log_in(unionid=unionid), await replicas.log_in(unionid=unionid, app=OTHER_APP)
    assert here["user"]["id"] == there["user"]["id"]
    for n in range(CHANGES):
        assert (await replicas.change((here, there)[n % 2], nickname=f"Alice {n}")).status_code == 200
    refused(await replicas.change(here, nickname="Alice"))
    refused(await replicas.change(there, nickname="Alice"))
    assert (await replicas.change(await replicas.log_in("bob", app=OTHER_APP), nickname="Bob")).status_code == 200


async def test_a_file_that_is_obviously_no_picture_does_not_count(replicas: Replicas, rows: Rows) -> None:
    alice = await replicas.log_in()
    problem_of(await replicas.upload(alice, b"not a picture"), "invalid_request", 422)
    assert await rows.fetchval("SELECT count(*) FROM attempts") == 0
