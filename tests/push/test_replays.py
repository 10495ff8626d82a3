"""Replaying a request that WeChat has signed erases no user, whatever body it has."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.database_proxy import Proxy
from tests.problems import problem_of
from tests.push.messages import ECHO, LEFT, NOW, PLAIN, SEALED, Inbox, Way, assert_taken, every_way, message, signed
from tests.sweeps import swept
from tests.world import MakeClient, MakeServices, send_push
from wxauth.core.background import Retries
from wxauth.core.services import Services
from wxauth.housekeeping.housekeeping import sweep
from wxauth.push.queries import SIGNATURES_KEPT, WITHDRAWALS_KEPT
from wxauth.push.receiving import PushedMessages
from wxauth_desk.wechat.push import Mode, SignedPush, push_signature

FIVE_MINUTES = 300
A_SECOND = timedelta(seconds=1)
TEXT = {"MsgType": "text", "Content": "hello"}


def forged(caught: SignedPush, openid: str) -> SignedPush:
    """Return a forged message that erases a user, with a query string that WeChat signed for another message."""
    return SignedPush(caught.query, signed(message(openid, LEFT)).body, "application/json")


pytestmark = pytest.mark.settings(apps=[PLAIN, SEALED])


@pytest.mark.parametrize("content", [TEXT, {"MsgType": "event", "Event": "debug_demo"}, message("nobody", LEFT), None])
async def test_a_messages_query_erases_nobody_and_is_no_handshake(inbox: Inbox, content: dict[str, str] | None) -> None:
    openid = await inbox.openid()
    caught = SignedPush(signed({}).query, b"<xml>", "text/xml") if content is None else signed(content)
    status = 422 if content is None else 200
    assert (await inbox.post(caught)).status_code == status
    await inbox.refuse(forged(caught, openid))
    problem_of(await inbox.verify_url(caught), "invalid_signature", 403)
    assert (await inbox.post(caught)).status_code == status, "WeChat's own repeat"
    assert await inbox.stage.number("users") == 1


@every_way
async def test_the_query_string_of_the_handshake_takes_no_message(inbox: Inbox, way: Way) -> None:
    openid = await inbox.openid(way.app)
    push = signed(message(openid, LEFT, app=way.app), *way)
    for _ in range(2):
        answer = await inbox.verify_url(push, way.app)
        assert (answer.status_code, answer.text) == (200, ECHO)
    await inbox.refuse(push, way.app)
    assert await inbox.stage.number("users") == 1


async def test_two_simultaneous_messages_with_one_signature_are_processed_once(
    inbox: Inbox, make_services: MakeServices, make_client: MakeClient
) -> None:
    openids = [await inbox.openid(person=person) for person in ("alice", "bob")]
    clients = [inbox.stage.client, make_client(await make_services(apps=[PLAIN]))]
    caught = signed(TEXT)
    pushes = [forged(caught, openids[number % 2]) for number in range(10)]
    answers = await asyncio.gather(
        *(send_push(clients[number // 5], push, PLAIN) for number, push in enumerate(pushes))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [403] * 5
    assert await inbox.stage.number("users") == 1


async def test_a_nonce_may_be_reused_a_second_later_and_in_another_app(inbox: Inbox) -> None:
    ways: list[tuple[dict[str, str], Mode]] = [(PLAIN, "plain"), (SEALED, "aes")]
    for app, mode in ways:
        for _ in range(2):
            now = str(int(inbox.stage.clock().timestamp()))
            push = signed({**TEXT, "CreateTime": now}, app, mode, timestamp=now, nonce="7")
            assert_taken(await inbox.post(push, app))
            inbox.stage.clock.advance(seconds=1)


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("off", [-FIVE_MINUTES - 1, FIVE_MINUTES + 1, -86400 * 365])
async def test_a_signature_that_was_not_made_just_now_is_refused(inbox: Inbox, way: Way, off: int) -> None:
    openid = await inbox.openid(way.app)
    push = signed(message(openid, LEFT, app=way.app), *way)
    inbox.stage.clock.advance(seconds=-off)
    await inbox.refuse(push, way.app)
    problem_of(await inbox.verify_url(push, way.app), "invalid_signature", 403)
    assert await inbox.stage.number("users") == 1


@pytest.mark.parametrize("off", [-FIVE_MINUTES, FIVE_MINUTES])
async def test_a_clock_may_be_five_minutes_off(inbox: Inbox, off: int) -> None:
    push = signed(message(await inbox.openid(), LEFT))
    inbox.stage.clock.advance(seconds=-off)
    assert_taken(await inbox.post(push))
    assert await inbox.stage.number("users") == 0


@swept("timestamp", ["", "now", "-1", "1e9", f"0{NOW}", f"00{NOW}", "１７９５１６１６００", "9" * 13, "9" * 5000])
async def test_a_signed_message_with_an_invalid_timestamp_is_refused(inbox: Inbox, timestamp: str) -> None:
    await inbox.refuse(signed(TEXT, timestamp=timestamp))


@pytest.mark.parametrize(
    ("nonce", "split"), [("00", (f"0{NOW}", "0")), (str(NOW + 1), (str(NOW + 1), str(NOW)))], ids=["zeros", "a time"]
)
async def test_a_signature_of_text_split_anew_erases_nobody(inbox: Inbox, nonce: str, split: tuple[str, str]) -> None:
    openid = await inbox.openid()
    caught = signed(TEXT, nonce=nonce)
    assert_taken(await inbox.post(caught))
    timestamp, other_nonce = split
    forgery = forged(caught, openid)
    query = {**forgery.query, "timestamp": timestamp, "nonce": other_nonce}
    assert query["signature"] == push_signature(PLAIN["push_token"], timestamp, other_nonce)
    await inbox.refuse(replace(forgery, query=query))
    assert await inbox.stage.number("users") == 1


# The database isn't reachable.


async def test_a_postponed_withdrawal_outlasts_its_signature_and_cannot_be_replaced(inbox: Inbox, proxy: Proxy) -> None:
    await inbox.cut_off(proxy, apps=[PLAIN])
    alice, bob = [await inbox.openid(person=person) for person in ("alice", "bob")]
    caught, genuine = signed(TEXT), signed(message(bob, LEFT))
    assert_taken(await send_push(inbox.stage.login.client, caught, PLAIN))
    # The second message is what WeChat is about to push about Bob, but with the signature of another message.
    for push in (forged(caught, alice), forged(caught, bob), genuine, forged(genuine, alice)):
        await inbox.postpone(push)
    inbox.stage.clock.advance(minutes=30)
    await proxy.accept()
    await inbox.stage.services[Retries].drain()
    assert await inbox.stage.number("users") == 1
    assert [line["openid"] for line in inbox.stage.logged("push_refused")] == [alice]


async def test_a_handshake_waits_for_the_database_to_come_back(inbox: Inbox, proxy: Proxy) -> None:
    await inbox.cut_off(proxy, apps=[PLAIN])
    push = signed(TEXT)
    problem_of(await inbox.verify_url(push), "storage_unavailable", 503)
    await proxy.accept()
    assert (await inbox.verify_url(push)).status_code == 200


# Retention.


async def test_signatures_and_messages_are_swept_in_time(inbox: Inbox) -> None:
    async def kept() -> int:
        await sweep(inbox.stage.services, page_size=1, pause=0)
        return await inbox.stage.number("push_messages")

    for person in ("alice", "bob", "carol"):
        assert_taken(await inbox.post(signed(message(await inbox.openid(person=person)))))
    inbox.stage.clock.now += SIGNATURES_KEPT
    assert await kept() == 6
    inbox.stage.clock.now += A_SECOND
    assert await kept() == 3
    inbox.stage.clock.now += WITHDRAWALS_KEPT - SIGNATURES_KEPT - A_SECOND
    assert await kept() == 3
    inbox.stage.clock.now += A_SECOND
    assert await kept() == 0


async def test_a_signature_is_known_for_as_long_as_a_message_may_wait_for_the_database(services: Services) -> None:
    assert timedelta(seconds=services[PushedMessages].kept_in_memory + 2 * FIVE_MINUTES) <= SIGNATURES_KEPT
