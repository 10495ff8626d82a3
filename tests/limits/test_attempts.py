"""Limits on calls to WeChat for one user."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.fakes import OTHER_APP, Clock, WeChatByRespx
from tests.pictures.test_avatars import encoded, plain
from tests.problems import problem_of
from tests.world import (
    Body,
    LogIn,
    LogLines,
    MakeClient,
    MakeService,
    MakeServices,
    Rows,
    Service,
    Stage,
    bearer,
    leave,
)
from wxauth.server.core.background import Background
from wxauth.server.dev.wechat import APPS
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.limits.rows import MAX_ATTEMPTS, WINDOW

PHONE: Any = "getuserphonenumber"
TEXT: Any = "msg_sec_check"
A_SECOND = timedelta(seconds=1)


async def send_wrong_codes(service: Service, login: Body, number: int = MAX_ATTEMPTS) -> None:
    # Another errcode than that of a made-up code, which is looked for at other replicas, for more than a second.
    service.simulator.fail(PHONE, errcode=47001, times=number)
    for n in range(number):
        problem_of(await service.bind(login, f"nonsense{n}"), "wechat_bad_response", 502)


def refused(answer: httpx.Response, *, retry_after: int = 3600) -> None:
    problem_of(answer, "rate_limited", 429)
    assert int(answer.headers["retry-after"]) == retry_after


# Phone codes.


async def test_after_twenty_refused_codes_wechat_is_not_asked_again_for_an_hour(service: Service) -> None:
    alice = await service.log_in()
    await send_wrong_codes(service, alice)
    refused(await service.bind(alice, "nonsense"))
    service.clock.advance(minutes=59, seconds=59)
    alice = await service.log_in()
    refused(await service.bind(alice, service.phone_code()), retry_after=1)
    assert len(service.asked(PHONE)) == MAX_ATTEMPTS
    service.clock.advance(seconds=1)
    assert (await service.bind(alice, service.phone_code())).status_code == 200


@pytest.mark.slow
async def test_concurrent_phone_codes_do_not_exceed_the_limit(service: Service, make_service: MakeService) -> None:
    alice = await service.log_in()
    replicas = [service, *[await make_service() for _ in range(3)]]
    answers = await asyncio.gather(*(replicas[n % 4].bind(alice, f"nonsense{n}") for n in range(60)))
    assert sorted(answer.status_code for answer in answers) == [400] * MAX_ATTEMPTS + [429] * (60 - MAX_ATTEMPTS)
    assert len(service.asked(PHONE)) == MAX_ATTEMPTS


async def test_phone_codes_sent_with_a_login_are_counted_and_the_login_succeeds(service: Service) -> None:
    service.simulator.fail(PHONE, errcode=47001, times=MAX_ATTEMPTS)
    for n in range(MAX_ATTEMPTS):
        assert (await service.log_in(phone_code=f"nonsense{n}"))["phone_error"] == "wechat_bad_response"
    assert (await service.log_in(phone_code=service.phone_code()))["phone_error"] == "rate_limited"
    assert len(service.asked(PHONE)) == MAX_ATTEMPTS


@pytest.mark.slow
async def test_the_limit_is_per_user_and_app(service: Service) -> None:
    await send_wrong_codes(service, await service.log_in())
    bob = await service.log_in("bob")
    assert (await service.bind(bob, service.phone_code("bob"))).status_code == 200
    elsewhere = await service.log_in(app_id=APPS[1]["app_id"])
    problem_of(await service.bind(elsewhere, "nonsense"), "invalid_code", 400)


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"errcode": 48001}, 502), ({"errcode": 45009}, 429), ({"errcode": -1}, 503), ({"garbage": True}, 502)],
    ids=str,
)
async def test_a_failure_that_is_not_the_codes_fault_is_not_counted(
    service: Service, fault: dict[str, Any], status: int
) -> None:
    alice = await service.log_in()
    service.simulator.fail(PHONE, times=None, **fault)
    assert (await service.bind(alice, service.phone_code())).status_code == status
    assert await service.rows.fetchval("SELECT number FROM attempts") == 0


async def test_an_erasure_does_not_reset_the_limit(service: Service) -> None:
    alice = await service.log_in()
    await send_wrong_codes(service, alice)
    assert (await leave(service.client, alice)).status_code == 204
    refused(await service.bind(await service.log_in(), "nonsense"))


async def test_a_stored_answer_is_found_even_after_too_many_attempts(service: Service) -> None:
    alice = await service.log_in()
    code = service.phone_code()
    assert (await service.bind(alice, code)).status_code == 200
    await send_wrong_codes(service, alice, MAX_ATTEMPTS - 1)
    refused(await service.bind(alice, service.phone_code()))
    assert (await service.bind(alice, code)).status_code == 200


# Names.


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["flag", "block"])
async def test_after_twenty_new_names_wechat_is_asked_about_none_for_an_hour(
    make_service: MakeService, clock: Clock, policy: str
) -> None:
    service = await make_service(nickname_check=policy)
    alice = await service.log_in()
    for n in range(MAX_ATTEMPTS):
        assert (await service.change(alice, nickname=f"Alice {n}")).status_code == 200
    refused(await service.change(alice, nickname="Alice"))
    assert (await service.change(alice, nickname=f"Alice {MAX_ATTEMPTS - 1}")).status_code == 200, (
        "WeChat is not asked about it"
    )
    await service.services[Background].drain()
    assert len(service.asked(TEXT)) == MAX_ATTEMPTS
    clock.now += WINDOW
    assert (await service.change(await service.log_in(), nickname="Alice")).status_code == 200


@pytest.mark.slow
async def test_a_login_with_a_name_beyond_the_limit_keeps_the_former_name(
    make_service: MakeService, log_lines: LogLines
) -> None:
    service = await make_service(nickname_check="block")
    for n in range(MAX_ATTEMPTS):
        assert (await service.log_in(nickname=f"Alice {n}"))["user"]["nickname"] == f"Alice {n}"
    assert (await service.log_in(nickname="Alice"))["user"]["nickname"] == f"Alice {MAX_ATTEMPTS - 1}"
    assert len(service.asked(TEXT)) == MAX_ATTEMPTS
    lines = [line["reason"] for line in log_lines() if line["event"] == "login_without_nickname"]
    assert lines == ["rate_limited"]


# Kept no longer than needed.


async def test_attempts_are_swept_when_their_hour_is_over(service: Service) -> None:
    for person in ("alice", "bob", "carol"):
        await send_wrong_codes(service, await service.log_in(person), 1)
    service.clock.now += WINDOW
    await sweep(service.services, page_size=1, pause=0)
    assert await service.rows.fetchval("SELECT count(*) FROM attempts") == 3
    service.clock.now += A_SECOND
    await sweep(service.services, page_size=1, pause=0)
    assert await service.rows.fetchval("SELECT count(*) FROM attempts") == 0


# Of a user in an hour.


CHANGES, CONSENTS, PICTURES = 60, 20, 20


@dataclass(frozen=True)
class Replicas:
    """Two replicas, as mini-programs ask them."""

    clients: list[httpx.AsyncClient]
    log_in: LogIn

    async def change(self, login: Body, *, replica: int = 0, **fields: object) -> httpx.Response:
        return await self.clients[replica].patch("/v1/me", json=fields, headers=bearer(login))

    async def agree(self, login: Body, **documents: str) -> httpx.Response:
        return await self.clients[0].post("/v1/me/consents", json=documents, headers=bearer(login))

    async def withdraw(self, login: Body, document: str) -> int:
        return (await self.clients[0].delete(f"/v1/me/consents/{document}", headers=bearer(login))).status_code

    async def upload(self, login: Body, shade: int, file: bytes | None = None) -> httpx.Response:
        files = {"file": ("a", file or encoded(plain(colour=(shade, 0, 0))))}
        return await self.clients[0].post("/v1/me/avatar", files=files, headers=bearer(login))


@pytest.fixture
async def replicas(make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx) -> Replicas:
    made = [await make_services(consents="privacy:2026-05,terms:3", access_token_ttl=86400) for _ in range(2)]
    clients = [make_client(services) for services in made]
    return Replicas(clients, LogIn(clients[0], wechat))


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
async def test_a_login_with_one_name_more_succeeds_and_keeps_the_former_name(stage: Stage, replicas: Replicas) -> None:
    alice = await replicas.log_in()
    for n in range(CHANGES - 1):
        assert (await replicas.log_in(nickname=f"Alice {n}"))["user"]["nickname"] == f"Alice {n}"
    assert (await replicas.change(alice, nickname="Alice")).status_code == 200
    fields = {"nickname": "Mallory", "avatar_url": "https://a.example/1.png"}
    user = (await replicas.log_in(**fields))["user"]
    assert (user["nickname"], user["avatar_url"]) == ("Alice", None)
    refused(await replicas.change(alice, nickname="Mallory"))
    (line,) = stage.logged("login_without_profile")
    assert (line["fields"], line["reason"]) == (["nickname", "avatar_url"], "rate_limited")
    assert "Mallory" not in str(line)
    stage.clock.advance(hours=1)
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
        assert (await replicas.upload(alice, shade)).status_code == 200
    refused(await replicas.upload(alice, 99))
    assert (await replicas.change(alice, nickname="Alice")).status_code == 200
    assert (await replicas.upload(await replicas.log_in("bob"), 0)).status_code == 200
    clock.advance(hours=1)
    assert (await replicas.upload(alice, 99)).status_code == 200


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
    assert (await leave(replicas.clients[0], first)).status_code == 204
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
    problem_of(await replicas.upload(alice, 0, b"not a picture"), "invalid_request", 422)
    assert await rows.fetchval("SELECT count(*) FROM attempts") == 0
