"""Tests of the example sites that need no service."""

import httpx

from tests.processes import free_port
from wxauth_desk.sites import create_sites

OF_SOME_KEY = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.e30.e30"
"""A token whose header contains `RS256` and the `kid` 1."""


async def test_a_site_that_cannot_fetch_the_keys_lets_the_service_send_the_logout_again() -> None:
    issuer = f"http://127.0.0.1:{free_port()}"
    site = create_sites(issuer, url="http://site.test", cookie_secret="any", back_end=[])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://site.test") as client:
        answer = await client.post("/backchannel-logout", data={"logout_token": OF_SOME_KEY})
    assert answer.status_code == 503
