"""Limits on calls to WeChat for one user."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.pictures.test_thumbnails import encoded, plain
from tests.problems import problem_of
from tests.world import Body, Stage, bearer, leave
from wxauth.server.core.background import Background
from wxauth.server.dev.wechat import APPS
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.limits.queries import MAX_ATTEMPTS, WINDOW

PHONE: Any = "getuserphonenumber"
TEXT: Any = "msg_sec_check"
A_SECOND = timedelta(seconds=1)

pytestmark = pytest.mark.settings(consents="privacy:2026-05,terms:3", access_token_ttl=86400)


async def send_wrong_codes(stage: Stage, login: Body, number: int = MAX_ATTEMPTS) -> None:
    # Another errcode than that of a made-up code, which is looked for at other replicas, for more than a second.
    stage.simulator.fail(PHONE, errcode=47001, times=number)
    for n in range(number):
        problem_of(await stage.bind(login, f"nonsense{n}"), "wechat_bad_response", 502)


def refused(answer: httpx.Response, *, retry_after: int = 3600) -> None:
    problem_of(answer, "rate_limited", 429)
    assert int(answer.headers["retry-after"]) == retry_after


# Phone codes.


@pytest.mark.slow
@pytest.mark.usefixtures("simulated")
async def test_after_twenty_refused_codes_of_a_user_in_an_app_wechat_is_not_asked_for_an_hour(stage: Stage) -> None:
    alice, bob = await stage.login(), await stage.login("bob")
    assert (await stage.bind(alice, code := stage.phone_code())).status_code == 200
    await send_wrong_codes(stage, alice, MAX_ATTEMPTS - 1)
    refused(await stage.bind(alice, "nonsense"))
    assert (await stage.bind(alice, code)).status_code == 200, "its answer is stored"
    assert len(stage.asked(PHONE)) == MAX_ATTEMPTS
    assert (await stage.bind(bob, stage.phone_code("bob"))).status_code == 200
    elsewhere = await stage.login(app_id=APPS[1]["app_id"])
    problem_of(await stage.bind(elsewhere, "nonsense"), "invalid_code", 400)
    asked = len(stage.asked(PHONE))
    stage.clock.advance(minutes=59, seconds=59)
    alice = await stage.login()
    refused(await stage.bind(alice, stage.phone_code()), retry_after=1)
    assert len(stage.asked(PHONE)) == asked
    stage.clock.advance(seconds=1)
    assert (await stage.bind(alice, stage.phone_code())).status_code == 200


@pytest.mark.slow
@pytest.mark.usefixtures("simulated")
async def test_concurrent_phone_codes_do_not_exceed_the_limit(stage: Stage) -> None:
    alice = await stage.login()
    replicas = [stage, *[await stage.replica() for _ in range(3)]]
    answers = await asyncio.gather(*(replicas[n % 4].bind(alice, f"nonsense{n}") for n in range(60)))
    assert sorted(answer.status_code for answer in answers) == [400] * MAX_ATTEMPTS + [429] * (60 - MAX_ATTEMPTS)
    assert len(stage.asked(PHONE)) == MAX_ATTEMPTS


@pytest.mark.usefixtures("simulated")
async def test_phone_codes_sent_with_a_login_are_counted_and_the_login_succeeds(stage: Stage) -> None:
    stage.simulator.fail(PHONE, errcode=47001, times=MAX_ATTEMPTS)
    for n in range(MAX_ATTEMPTS):
        assert (await stage.login(phone_code=f"nonsense{n}"))["phone_error"] == "wechat_bad_response"
    assert (await stage.login(phone_code=stage.phone_code()))["phone_error"] == "rate_limited"
    assert len(stage.asked(PHONE)) == MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"errcode": 48001}, 502), ({"errcode": 45009}, 429), ({"errcode": -1}, 503), ({"garbage": True}, 502)],
    ids=str,
)
@pytest.mark.usefixtures("simulated")
async def test_a_failure_that_is_not_the_codes_fault_is_not_counted(stage: Stage, fault: Body, status: int) -> None:
    alice = await stage.login()
    stage.simulator.fail(PHONE, times=None, **fault)
    assert (await stage.bind(alice, stage.phone_code())).status_code == status
    assert await stage.rows.fetchval("SELECT number FROM attempts") == 0


# Names.


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["flag", "block"])
@pytest.mark.usefixtures("simulated")
async def test_after_twenty_new_names_wechat_is_not_asked_for_an_hour(stage: Stage, policy: str) -> None:
    stage = await stage.replica(nickname_check=policy)
    alice = await stage.login()
    for n in range(MAX_ATTEMPTS):
        assert (await stage.change(alice, nickname=f"Alice {n}")).status_code == 200
    refused(await stage.change(alice, nickname="Alice"))
    assert (await stage.change(alice, nickname=f"Alice {MAX_ATTEMPTS - 1}")).status_code == 200, (
        "WeChat is not asked about it"
    )
    again = await stage.login(nickname="Mallory")
    assert again["ignored"] == {"nickname": "rate_limited"}
    assert again["user"]["nickname"] == f"Alice {MAX_ATTEMPTS - 1}"
    assert [line["reason"] for line in stage.logged("login_without_nickname")] == ["rate_limited"]
    await stage.services[Background].drain()
    assert len(stage.asked(TEXT)) == MAX_ATTEMPTS
    stage.clock.now += WINDOW
    assert (await stage.change(await stage.login(), nickname="Alice")).status_code == 200


# Kept no longer than needed.


@pytest.mark.usefixtures("simulated")
async def test_attempts_are_swept_when_their_hour_is_over(stage: Stage) -> None:
    for person in ("alice", "bob", "carol"):
        await send_wrong_codes(stage, await stage.login(person), 1)
    stage.clock.now += WINDOW
    await sweep(stage.services, page_size=1, pause=0)
    assert await stage.rows.fetchval("SELECT count(*) FROM attempts") == 3
    stage.clock.now += A_SECOND
    await sweep(stage.services, page_size=1, pause=0)
    assert await stage.rows.fetchval("SELECT count(*) FROM attempts") == 0


# Of a user in an hour.


CHANGES, CONSENTS, PICTURES = 60, 20, 20


async def agree(stage: Stage, login: Body, **documents: str) -> httpx.Response:
    return await stage.client.post("/v1/me/consents", json=documents, headers=bearer(login))


async def withdraw(stage: Stage, login: Body, document: str) -> int:
    return (await stage.client.delete(f"/v1/me/consents/{document}", headers=bearer(login))).status_code


async def upload(stage: Stage, login: Body, shade: int, file: bytes | None = None) -> httpx.Response:
    files = {"file": ("a", file or encoded(plain(colour=(shade, 0, 0))))}
    return await stage.client.post("/v1/me/avatar", files=files, headers=bearer(login))


# Names and picture URLs.


@pytest.mark.slow
async def test_a_user_changes_name_and_picture_sixty_times_an_hour(stage: Stage) -> None:
    alice, other = await stage.login(), await stage.replica()
    for n in range(CHANGES):
        fields = {"nickname": f"Alice {n}"} if n % 2 else {"avatar_url": f"https://a.example/{n}.png"}
        assert (await (stage, other)[n % 2].change(alice, **fields)).status_code == 200
    stage.clock.advance(minutes=59, seconds=59)
    refused(await stage.change(alice, nickname="Alice"), retry_after=1)
    refused(await stage.change(alice, avatar_url=None), retry_after=1)
    assert (await stage.login())["user"]["nickname"] == f"Alice {CHANGES - 1}"
    assert (await stage.change(await stage.login("bob"), nickname="Bob")).status_code == 200
    stage.clock.advance(seconds=1)
    assert (await stage.change(alice, nickname="Alice")).status_code == 200


async def test_a_change_without_effect_does_not_count(stage: Stage) -> None:
    alice = await stage.login(nickname="Alice")
    for _ in range(CHANGES + 1):
        assert (await stage.change(alice, nickname="Alice", avatar_url=None)).status_code == 200
    await stage.login(nickname="Alice")
    assert await stage.rows.fetchval("SELECT count(*) FROM attempts") == 0


@pytest.mark.slow
async def test_a_login_with_one_name_more_succeeds_and_keeps_the_former_name(stage: Stage) -> None:
    alice = await stage.login()
    for n in range(CHANGES - 1):
        assert (await stage.login(nickname=f"Alice {n}"))["user"]["nickname"] == f"Alice {n}"
    assert (await stage.change(alice, nickname="Alice")).status_code == 200
    fields = {"nickname": "Mallory", "avatar_url": "https://a.example/1.png"}
    answer = await stage.login(**fields)
    user = answer["user"]
    assert (user["nickname"], user["avatar_url"]) == ("Alice", None)
    refused(await stage.change(alice, nickname="Mallory"))
    assert answer["ignored"] == dict.fromkeys(fields, "rate_limited")
    (line,) = stage.logged("login_without_profile")
    assert (line["fields"], line["reason"]) == (["nickname", "avatar_url"], "rate_limited")
    assert "Mallory" not in str(line)
    stage.clock.advance(hours=1)
    assert (await stage.login(nickname="Mallory"))["user"]["nickname"] == "Mallory"


# Consents.


@pytest.mark.slow
async def test_a_user_gives_twenty_consents_an_hour_and_withdraws_any_number(stage: Stage) -> None:
    alice = await stage.login()
    for _ in range(CONSENTS - 1):
        assert (await agree(stage, alice, privacy="2026-05")).status_code == 200
        assert await withdraw(stage, alice, "privacy") == 204
    refused(await agree(stage, alice, privacy="2026-05", terms="3"))
    assert await stage.rows.fetchval("SELECT count(*) FROM events WHERE type = 'consent.given'") == CONSENTS - 1
    assert (await agree(stage, alice, terms="3")).status_code == 200
    refused(await agree(stage, alice, privacy="2026-05"))
    assert (await agree(stage, alice, terms="3")).status_code == 200, "it is no new one"
    due = (await stage.login(consents={"privacy": "2026-05"}))["user"]["consents_due"]
    assert due == [{"document": "privacy", "version": "2026-05"}]
    assert await withdraw(stage, alice, "terms") == 204
    stage.clock.advance(hours=1)
    assert (await agree(stage, alice, privacy="2026-05", terms="3")).status_code == 200


# Pictures.


async def test_a_user_uploads_twenty_pictures_an_hour(stage: Stage) -> None:
    alice = await stage.login()
    problem_of(await upload(stage, alice, 0, b"not a picture"), "invalid_request", 422)  # which is not counted
    for shade in range(PICTURES):
        assert (await upload(stage, alice, shade)).status_code == 200
    refused(await upload(stage, alice, 99))
    assert (await stage.change(alice, nickname="Alice")).status_code == 200
    assert (await upload(stage, await stage.login("bob"), 0)).status_code == 200
    stage.clock.advance(hours=1)
    assert (await upload(stage, alice, 99)).status_code == 200


# Counts outlive the user.


@pytest.mark.slow
@pytest.mark.parametrize("unionid", [None, "o6_bmasdasdsad6_2sgVt7hMZOPfL"], ids=["openid", "unionid"])
async def test_erasing_oneself_resets_no_limit_of_names(stage: Stage, unionid: str | None) -> None:
    first = await stage.login(unionid=unionid)
    for n in range(CHANGES // 2):
        assert (await stage.change(first, nickname=f"Alice {n}")).status_code == 200
        renamed = await stage.login(unionid=unionid, nickname=f"Alice, {n}")
        assert renamed["user"]["nickname"] == f"Alice, {n}"
    assert (await leave(stage.client, first)).status_code == 204
    again = await stage.login(unionid=unionid, nickname="Alice")
    assert again["is_new_user"] is True
    refused(await stage.change(again, nickname="Mallory"))
    assert (await stage.login(unionid=unionid, nickname="Mallory"))["user"]["nickname"] == "Alice"
    stage.clock.advance(hours=1)
    assert (await stage.change(again, nickname="Mallory")).status_code == 200
