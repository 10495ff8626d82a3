"""Services get signatures for the JS-SDK on pages in WeChat's browser. wxauth stores the ticket that this needs."""

import asyncio
from hashlib import sha1
from typing import Any

import httpx
import pytest

from tests.fakes import SECRET_KEY
from tests.loops import let_pass
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Stage, add_client, body_of, until
from wxauth.clients.clients import Credentials
from wxauth_desk.wechat import ACCOUNT, APPS, Simulator

ACCOUNT_ID = ACCOUNT["app_id"]
HOSTS = {**ACCOUNT, "js_hosts": ["shop.test", "m.shop.test:8443", "https"]}
URL = "https://shop.test/orders?page=2#top"


@pytest.fixture
async def signing(stage: Stage, simulated: Simulator) -> Stage:
    return await stage.replica(apps=[*APPS, HOSTS])


@pytest.fixture
async def shop(signing: Stage) -> Credentials:
    return await add_client(signing.services.database, "shop", scopes=["js_sign"], now=signing.clock())


async def sign(stage: Stage, shop: Credentials, url: Any = URL, *, app_id: str = ACCOUNT_ID) -> httpx.Response:
    return await stage.client.post(f"/v1/apps/{app_id}/js-signatures", json={"url": url}, auth=shop)


def fetched(stage: Stage) -> int:
    return len(stage.simulator.calls_of("getticket"))


async def test_a_page_is_signed_as_wx_config_takes_it(signing: Stage, shop: Credentials) -> None:
    answer = await sign(signing, shop)
    signed = body_of(answer)
    assert answer.headers["cache-control"] == "no-store"
    assert signed.keys() == {"appId", "timestamp", "nonceStr", "signature"}
    assert (signed["appId"], signed["timestamp"]) == (ACCOUNT_ID, int(signing.clock().timestamp()))
    ticket, _ = signing.simulator.js_tickets[ACCOUNT_ID]
    text = f"jsapi_ticket={ticket}&noncestr={signed['nonceStr']}&timestamp={signed['timestamp']}&url=https://shop.test/orders?page=2"
    assert signed["signature"] == sha1(text.encode()).hexdigest()
    assert len(signed["nonceStr"]) == 16
    assert body_of(await sign(signing, shop))["nonceStr"] != signed["nonceStr"]
    assert ticket not in str(signing.log_lines())


@swept(
    ("url", "signed"),
    [
        ("https://shop.test", "https://shop.test/"),
        ("https://shop.test?page=2#top", "https://shop.test/?page=2"),
        ("https://SHOP.test/", "https://SHOP.test/"),
        ("https://https?page=2", "https://https/?page=2"),
    ],
)
async def test_a_page_is_signed_with_the_slash_that_its_location_has(
    signing: Stage, shop: Credentials, url: str, signed: str
) -> None:
    answer = body_of(await sign(signing, shop, url))
    ticket, _ = signing.simulator.js_tickets[ACCOUNT_ID]
    text = f"jsapi_ticket={ticket}&noncestr={answer['nonceStr']}&timestamp={answer['timestamp']}&url={signed}"
    assert answer["signature"] == sha1(text.encode()).hexdigest()


@swept(
    "url",
    [
        "https://other.test/",
        "https://a.shop.test/",
        "https://shop.test.evil.test/",
        "https://evil.test/@shop.test",
        "https://u@shop.test/",
        "https://evil.test\\@shop.test/",
        "ftp://shop.test/",
        "shop.test",
        "",
        "https://m.shop.test/",
        f"https://shop.test/{'a' * 2048}",
        "https://shop.test/a b",
        "https://shop.test:x/",
        "https://shop.test/?a=1&amp;b=2",
        7,
    ],
)
async def test_a_page_of_another_host_is_not_signed(signing: Stage, shop: Credentials, url: Any) -> None:
    problem = problem_of(await sign(signing, shop, url), "invalid_request", 422)
    assert [error["field"] for error in problem["errors"]] == ["url"]
    assert fetched(signing) == 0
    assert (await sign(signing, shop, "http://m.shop.test:8443")).status_code == 200
    signing.simulator.calls.clear()


async def test_what_may_be_signed_a_hundred_times(signing: Stage, shop: Credentials) -> None:
    problem_of(await sign(signing, shop, app_id=APPS[0]["app_id"]), "wrong_app_kind", 422)
    problem_of(await sign(signing, shop, app_id="wxunknown"), "unknown_app", 400)
    bare = await signing.replica(apps=[*APPS, ACCOUNT])
    assert "js_hosts" in problem_of(await sign(bare, shop), "invalid_request", 422)["detail"]
    for _ in range(100):
        last = await sign(signing, shop)
    assert last.status_code == 429


async def test_one_replica_fetches_for_all_and_again_before_the_end(signing: Stage, shop: Credentials) -> None:
    replica = await signing.replica(apps=[*APPS, HOSTS])
    answers = await asyncio.gather(*(sign(each, shop) for each in (signing, replica) * 5))
    assert {answer.status_code for answer in answers} == {200}
    assert fetched(signing) == 1
    signing.clock.advance(seconds=6900)
    await sign(signing, shop)
    signing.clock.advance(seconds=100)  # 200 s before the ticket expires
    for stage in (signing, replica):
        assert (await sign(stage, shop)).status_code == 200
    await until(lambda: fetched(signing) == 2)


async def test_while_wechat_hangs_nobody_waits_who_has_a_ticket(signing: Stage, shop: Credentials) -> None:
    await sign(signing, shop)
    signing.simulator.fail("getticket", hang=True, times=None)
    signing.clock.advance(seconds=7000)
    for stage in (signing, await signing.replica(apps=[*APPS, HOSTS])):  # the second finds the stored ticket
        answers = await asyncio.gather(*(sign(stage, shop) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
    await until(lambda: fetched(signing) == 2)
    assert "js_ticket_not_renewed" not in str(signing.log_lines()), "the call has ended already"


async def test_after_wechat_has_hung_it_is_not_asked_for_some_seconds(signing: Stage, shop: Credentials) -> None:
    signing.simulator.fail("getticket", hang=True, times=None)
    asking = asyncio.create_task(sign(signing, shop))
    await until(lambda: fetched(signing) == 1)
    signing.clock.advance(seconds=6)
    let_pass(6)
    problem_of(await asking, "wechat_timeout", 504)
    for _ in range(3):
        problem_of(await sign(signing, shop), "wechat_timeout", 504)
    assert fetched(signing) == 1
    signing.clock.advance(seconds=5)
    signing.simulator.faults.clear()
    assert (await sign(signing, shop)).status_code == 200


async def test_times_of_a_wrong_clock_are_no_times_of_a_ticket(signing: Stage, shop: Credentials) -> None:
    signing.clock.advance(hours=26)
    await sign(signing, shop)
    await signing.rows.execute("UPDATE js_tickets SET leased_until = ends_at")
    signing.clock.advance(hours=-26)
    for stage in (signing, await signing.replica(apps=[*APPS, HOSTS])):
        assert (await sign(stage, shop)).status_code == 200
        assert fetched(signing) == 2
    await signing.rows.execute("UPDATE js_tickets SET ticket = NULL, renews_at = renews_at + interval '1 day'")
    assert (await sign(await signing.replica(apps=[*APPS, HOSTS]), shop)).status_code == 200


async def test_a_ticket_in_force_is_used_while_wechat_fails(signing: Stage, shop: Credentials) -> None:
    signing.simulator.fail("getticket", errcode=-1, times=None)
    problem_of(await sign(signing, shop), "wechat_unavailable", 503)
    before = fetched(signing)
    problem_of(await sign(signing, shop), "wechat_unavailable", 503)
    assert fetched(signing) == before  # wxauth waits for some seconds
    signing.simulator.faults.clear()
    signing.clock.advance(seconds=5)
    assert (await sign(signing, shop)).status_code == 200
    signing.simulator.fail("getticket", errcode=-1, times=None)
    signing.clock.advance(seconds=7000)
    for _ in range(2):
        assert (await sign(signing, shop)).status_code == 200
    signing.clock.advance(seconds=200)
    problem_of(await sign(signing, shop), "wechat_unavailable", 503)


@pytest.mark.parametrize("errcode", [40001, 42001])
async def test_a_refused_access_token_is_renewed_first(signing: Stage, shop: Credentials, errcode: int) -> None:
    signing.simulator.fail("getticket", errcode=errcode, times=1)
    assert (await sign(signing, shop)).status_code == 200
    assert (fetched(signing), len(signing.simulator.calls_of("stable_token"))) == (2, 2)


async def test_a_ticket_that_cannot_be_decrypted_is_fetched_anew(signing: Stage, shop: Credentials) -> None:
    await sign(signing, shop)
    stored = await signing.rows.fetchval("SELECT ticket FROM js_tickets")
    assert signing.simulator.js_tickets[ACCOUNT_ID][0].encode() not in stored
    await signing.rows.execute("UPDATE js_tickets SET ticket = sha256('x')")
    other = await signing.replica(apps=[*APPS, HOSTS], secret_key=SECRET_KEY)
    assert (await sign(other, shop)).status_code == 200
    assert fetched(signing) == 2


async def test_who_has_waited_in_vain_for_another_process_answers_at_once(signing: Stage, shop: Credentials) -> None:
    signing.simulator.fail("getticket", hang=True, times=None)
    replica = await signing.replica(apps=[*APPS, HOSTS])
    asking = asyncio.create_task(sign(signing, shop))
    await until(lambda: fetched(signing) == 1)
    waiting = asyncio.create_task(sign(replica, shop))
    await asyncio.sleep(0.3)
    let_pass(11)
    for each in (waiting, asking):
        problem_of(await each, "wechat_timeout", 504)
    began = asyncio.get_running_loop().time()
    problem_of(await sign(replica, shop), "wechat_timeout", 504)
    assert (asyncio.get_running_loop().time() - began < 1, fetched(signing)) == (True, 1)
