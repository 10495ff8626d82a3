"""The webhook receiver on the desk shows messages and their signatures, and simulates failures."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from uuid_utils.compat import uuid7

from tests.serving import serving
from wxauth.core.clock import utc_now
from wxauth.core.services import Services
from wxauth.core.trail import OPERATOR
from wxauth.events.webhooks import Webhooks
from wxauth.outbound.signatures import new_webhook_secret, shown_secret, signed_headers
from wxauth_desk.wechat import create_simulator


class Desk:
    """The simulator with an HTTP client."""

    def __init__(self) -> None:
        transport = httpx.ASGITransport(create_simulator())
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001")

    async def behave(self, **wanted: Any) -> int:
        return (await self.client.post("/webhook/behaviour", json=wanted)).status_code

    async def messages(self) -> list[dict[str, Any]]:
        return (await self.client.get("/webhook/messages")).json()["messages"]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_the_receiver_shows_whether_a_signature_holds(desk: Desk) -> None:
    key, other = new_webhook_secret(), new_webhook_secret()
    body = b'{"type":"user.erased"}'
    headers = signed_headers(str(uuid7()), body, [other, key], now=utc_now())
    await desk.client.post("/webhook", content=body, headers=headers)
    assert await desk.behave(secret=shown_secret(key)) == 200
    await desk.client.post("/webhook", content=body, headers=headers)
    await desk.client.post("/webhook", content=body + b" ", headers=headers)
    await desk.client.post("/webhook", content=body)
    late = signed_headers(str(uuid7()), body, [key], now=utc_now() - timedelta(seconds=310))
    await desk.client.post("/webhook", content=body, headers=late)
    verdicts = [message["signature"] for message in await desk.messages()]
    assert verdicts == ["does not hold"] * 3 + ["holds", "secret unknown"]
    assert (await desk.messages())[0]["message"] == {"type": "user.erased"}


async def test_numbers_that_python_or_json_refuses_are_no_failure(desk: Desk) -> None:
    await desk.behave(secret=shown_secret(new_webhook_secret()))
    for body, time in ((b"{}", "1" * 5000), (b'{"n":NaN}', "1"), (b'{"n":Infinity}', "1")):
        answer = await desk.client.post("/webhook", content=body, headers={"webhook-timestamp": time})
        assert answer.status_code == 204
    messages = await desk.messages()
    assert [message["message"] for message in messages] == [None, None, {}]
    assert {message["signature"] for message in messages} == {"does not hold"}


async def test_the_signature_of_a_large_message_holds(desk: Desk) -> None:
    key = new_webhook_secret()
    assert await desk.behave(secret=shown_secret(key)) == 200
    sizes = (64 * 1024, 64 * 1024 + 1, 1024 * 1024)
    for size in sizes:
        body = b'"' + b"a" * (size - 2) + b'"'
        headers = signed_headers(str(uuid7()), body, [key], now=utc_now())
        await desk.client.post("/webhook", content=body, headers=headers)
        await desk.client.post("/webhook", content=body[:-1] + b" ", headers=headers)
    verdicts = [message["signature"] for message in await desk.messages()]
    assert verdicts == ["does not hold", "holds"] * len(sizes)
    assert [message["message"] is None for message in await desk.messages()] == [True, True, True, True, True, False]


async def test_the_receiver_answers_as_configured(desk: Desk) -> None:
    for answer in (204, 410, 429, 500):
        assert await desk.behave(answer=answer) == 200
        assert (await desk.client.post("/webhook", content=b"{}")).status_code == answer
        assert (await desk.messages())[0]["answer"] == answer
    for wrong in ({"answer": 99}, {"answer": "later"}, {"secret": "whsec_§"}):
        assert await desk.behave(**wrong) == 422
    await desk.behave(answer="hang")
    asking = asyncio.create_task(desk.client.post("/webhook", content=b"{}"))
    done, _ = await asyncio.wait([asking], timeout=0.2)
    assert (done, (await desk.messages())[0]["answer"]) == (set(), "hang")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_the_receiver_accepts_the_services_messages(services: Services) -> None:
    with serving(create_simulator()) as url:
        await services[Webhooks].add("desk", url=f"{url}/webhook", types=(), by=OPERATOR)
        assert (await services[Webhooks].send_test("desk", by=OPERATOR)).status == 204
