"""`examples/sibling`, started beside `wxauth dev` as its README says."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import WXAUTH, Running, free_port

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """wxauth's and the sibling's."""
    port, sibling_port = str(free_port()), str(free_port())
    wxauth, sibling = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{sibling_port}"
    folder = tmp_path_factory.mktemp("example")
    uvicorn = str(Path(WXAUTH).with_name("uvicorn"))
    with (
        Running(WXAUTH, "dev", "--port", port, "--wechat-port", str(free_port()), cwd=folder) as service,
        Running(
            *(uvicorn, "examples.sibling.app:app", "--app-dir", str(ROOT), "--port", sibling_port),
            cwd=folder,
            env={"WXAUTH_ISSUER": wxauth},
        ) as orders,
    ):
        service.wait_for("wxauth is ready")
        orders.wait_for("Uvicorn running")
        yield wxauth, sibling
        service.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def login(urls: tuple[str, str]) -> dict[str, Any]:
    return httpx.post(f"{urls[0]}/v1/login", json={"code": "alice"}, trust_env=False).json()


def orders(urls: tuple[str, str], token: str) -> httpx.Response:
    return httpx.get(f"{urls[1]}/orders", headers={"Authorization": f"Bearer {token}"}, trust_env=False)


def test_the_sibling_accepts_a_token_of_wxauths(urls: tuple[str, str], login: dict[str, Any]) -> None:
    answer = orders(urls, login["access_token"])
    assert answer.status_code == 200, answer.text
    assert answer.json() == [{"item": "oolong tea", "for": login["user"]["openid"]}]


def test_the_sibling_refuses_a_tampered_token(urls: tuple[str, str], login: dict[str, Any]) -> None:
    answer = orders(urls, login["access_token"][:-5] + "AAAAA")
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


def test_the_sibling_refuses_a_request_without_a_token(urls: tuple[str, str]) -> None:
    answer = httpx.get(f"{urls[1]}/orders", trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")
