"""The simulated WeChat and the example sites limit what they read and store."""

from collections.abc import AsyncIterator

import httpx
from starlette.types import ASGIApp

from wxauth_desk.middleware import MAX_BODY_BYTES
from wxauth_desk.sites import create_sites
from wxauth_desk.wechat import APPS, Simulator, create_simulator
from wxauth_desk.wechat.faults import MAX_FAULTS
from wxauth_desk.wechat.issued import MAX_TOKENS, OVERLAP_SECONDS
from wxauth_desk.wechat.simulator import MAX_VISITORS


async def test_no_route_reads_a_body_that_is_too_large() -> None:
    wechat = create_simulator()
    site = create_sites("http://issuer.test", url="http://site.test", cookie_secret="any", back_end=[])
    piece = b"a" * 64 * 1024

    async def status_and_size(app: ASGIApp, path: str) -> tuple[int, int]:
        """Send a body of twice the limit. Return the response's status and the number of bytes that were read."""
        sent = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 2 * MAX_BODY_BYTES:
                sent += len(piece)
                yield piece

        headers = {"X-Phone-Url": "http://127.0.0.1:8000/v1/me/avatar"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://desk.test") as client:
            answer = await client.post(path, content=pieces(), headers=headers)
        return answer.status_code, sent

    for path in ("/webhook", "/codes", "/cgi-bin/stable_token", "/desk/request", "/desk/web-view"):
        assert await status_and_size(wechat, path) == (413, MAX_BODY_BYTES + len(piece)), path
    assert await status_and_size(site, "/admin/backchannel-logout") == (413, MAX_BODY_BYTES + len(piece))


async def test_the_oldest_visitors_and_faults_are_forgotten() -> None:
    simulator = Simulator()
    transport = httpx.ASGITransport(create_simulator(simulator))
    async with httpx.AsyncClient(transport=transport, base_url="http://wechat.test") as client:
        for number in range(MAX_VISITORS + 1):
            visitor = {"person": f"visitor{number}", "app_id": APPS[0]["app_id"]}
            assert (await client.post("/visitors", json=visitor)).status_code == 200
            if number == 1:  # the first visitor is now newer than the second one
                await client.post("/visitors", json={**visitor, "person": "visitor0"})
        for number in range(MAX_FAULTS + 1):
            assert (await client.post("/faults", json={"api": "token", "errcode": number})).status_code == 200
    people = [person for person, _ in simulator.visitors]
    assert people[:2] == ["visitor0", "visitor2"]
    assert len(people) == MAX_VISITORS
    assert [fault.errcode for fault in simulator.faults] == list(range(1, MAX_FAULTS + 1))


def test_the_oldest_access_tokens_of_an_app_are_forgotten() -> None:
    now = 0.0
    simulator = Simulator(lambda: now)
    tokens = simulator.access_tokens[APPS[0]["app_id"]]
    stable = tokens.hand_out_stable_token(force=False)["access_token"]
    older = [tokens.issue_token()["access_token"] for _ in range(MAX_TOKENS)]
    assert stable not in tokens
    assert all(each in tokens for each in older)
    assert tokens.hand_out_stable_token(force=False)["access_token"] not in {stable, *older}
    now += OVERLAP_SECONDS
    tokens.check(older[-1])
