"""`examples/sibling` works next to `wxauth-desk dev`, if it is started as its README shows."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from examples.sibling.app import app, guard
from tests.problems import problem_of
from tests.processes import PATIENCE, dev_with_sibling, serving
from tests.programs import ROOT, needs, output_of
from tests.world import bearer
from wxauth_guard.testing import TestIssuer

pytestmark = pytest.mark.process

READMES = [
    re.split("^## ", (ROOT / "examples/sibling" / name).read_text(), flags=re.MULTILINE)[0]
    for name in ("README.md", "README.zh-CN.md")
]
"""The part about tokens in each language's README. test_example_events.py tests the other part."""


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Run wxauth and the sibling, and yield their URLs."""
    with dev_with_sibling(tmp_path_factory.mktemp("example")) as world:
        yield world["SERVICE_URL"], world["ORDERS_URL"]


@pytest.fixture(scope="module")
def login(urls: tuple[str, str]) -> dict[str, Any]:
    return httpx.post(f"{urls[0]}/v1/login", json={"code": "alice"}, trust_env=False, verify=False).json()


def orders(urls: tuple[str, str], token: str) -> httpx.Response:
    return httpx.get(f"{urls[1]}/orders", headers=bearer(token), trust_env=False, verify=False)


def test_the_sibling_accepts_a_token_of_wxauths(urls: tuple[str, str], login: dict[str, Any]) -> None:
    answer = orders(urls, login["access_token"])
    assert answer.status_code == 200, answer.text
    assert answer.json() == [{"item": "oolong tea", "for": login["user"]["openid"]}]


def live_orders(url: str, headers: dict[str, str]) -> connect:
    return connect(f"{url.replace('http', 'ws', 1)}/orders/live", additional_headers=headers, proxy=None)


async def test_the_sibling_takes_orders_on_a_websocket(urls: tuple[str, str], login: dict[str, Any]) -> None:
    async with live_orders(urls[1], {"Authorization": f"Bearer {login['access_token']}"}) as socket:
        for item in ("jasmine tea", "pu'er"):
            await socket.send(item)
            assert json.loads(await socket.recv()) == {"item": item, "for": login["user"]["openid"]}


async def test_a_websocket_ends_with_its_token() -> None:
    issuer = TestIssuer()
    with issuer.trusted_by(guard), serving(app) as url:
        async with live_orders(url, issuer.headers(expires_in=-5)) as socket:  # within the allowed clock skew
            with pytest.raises(websockets.ConnectionClosed) as end:
                await asyncio.wait_for(socket.recv(), PATIENCE)
    assert end.value.rcvd is not None
    assert (end.value.rcvd.code, end.value.rcvd.reason) == (1008, "token_expired")


async def test_a_website_reads_and_places_no_orders() -> None:
    with (issuer := TestIssuer()).trusted_by(guard), serving(app) as url:
        problem_of(orders(("", url), issuer.token(scope="openid")), "insufficient_scope", 403)
        with pytest.raises(websockets.InvalidStatus, match="403"):
            await live_orders(url, issuer.headers(scope="openid"))


@pytest.mark.parametrize("readme", READMES, ids=["English", "Chinese"])
def test_the_commands_of_the_readme_can_be_typed(urls: tuple[str, str], readme: str, tmp_path: Path) -> None:
    needs("curl")
    starting, serving_orders, *trying = re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert (starting, serving_orders[:15]) == ("scripts/dev\n", ".venv/bin/uvico")
    typed = "".join(trying).replace(".venv/bin/python", sys.executable)
    for written, url in zip(("127.0.0.1:8000", "127.0.0.1:8002"), urls, strict=True):
        typed = typed.replace(written, url.removeprefix("http://"))
    printed = output_of("sh", "-eu", "-c", typed, cwd=tmp_path)
    assert re.findall(r"HTTP/1.1 (\d+)|\"item\":\"(\w+)", printed) == [
        ("200", ""),
        ("", "oolong"),
        ("401", ""),
        ("401", ""),
        ("", "jasmine"),
    ]
