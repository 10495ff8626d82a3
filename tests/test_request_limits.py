"""What no route takes: requests that cost far more to read than to send."""

import httpx
import pytest

from tests.asking import bearer
from tests.fakes import LoginAnswer
from tests.sweeps import Sweep

PATHS = (
    "/v1/login",
    "/v1/me",
    "/v1/me/sessions",
    "/v1/authorize",
    "/v1/verify",
    "/v1/admin/users",
    "/v1/events",
    "/.well-known/jwks.json",
    "/livez",
    "/readyz",
    "/metrics",
    "/docs",
    "/admin/",
    "/nothing",
)
BACKSLASHES = '"' + 8_000 * "\\1" + '"'


async def test_no_cookie_reaches_the_parser_of_the_standard_library(
    client: httpx.AsyncClient, login: LoginAnswer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(value: str) -> str:
        raise AssertionError(f"{len(value)} characters are unquoted in quadratic time")

    headers = bearer(await login())
    monkeypatch.setattr("http.cookies._unquote", parsed)
    with Sweep() as sweep:
        for path in PATHS:
            for cookie in (BACKSLASHES, BACKSLASHES[:2000] + '"'):
                for name in ("a", "__Host-wxauth-browser", "__Secure-wxauth-console"):
                    with sweep.case(path, len(cookie), name):
                        answer = await client.get(path, headers={**headers, "Cookie": f"{name}={cookie}"})
                        assert answer.status_code < 500
