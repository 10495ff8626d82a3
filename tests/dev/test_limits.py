"""The limits on what the simulated WeChat and the example sites read and store."""

from collections.abc import AsyncIterator

import httpx
from starlette.types import ASGIApp

from wxauth_desk.middleware import MAX_BODY_BYTES
from wxauth_desk.sites import create_site
from wxauth_desk.wechat import create_simulator


async def test_no_route_reads_a_body_that_is_too_large() -> None:
    wechat = create_simulator()
    site = create_site("http://issuer.test", url="http://site.test", cookie_secret="any", back_end=[])
    piece = b"a" * 64 * 1024

    async def status_and_size(app: ASGIApp, path: str) -> tuple[int, int]:
        """The status of the response to a body of twice the limit, and the number of bytes that were read."""
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
