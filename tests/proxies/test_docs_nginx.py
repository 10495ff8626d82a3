"""The nginx configuration of docs/siblings.md, unchanged, in front of a real wxauth."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.docs import ROOT, code_blocks
from tests.fakes import Clock
from tests.processes import free_port, is_served, serving, until
from tests.proxies.running import Recorder, echo, nginx_with
from tests.world import bearer
from wxauth.server.core.settings import Settings
from wxauth.server.dev.wechat import APPS, create_simulator
from wxauth.server.service.app import create_app
from wxauth.server.service.build import build_services

pytestmark = pytest.mark.proxy

PIECES_TO_START = {
    "where wxauth is": r"upstream wxauth \{.*?\}\n",
    "http.conf": r"include wxauth/http.conf; .*?\n",
    "guard.conf": r"include wxauth/guard.conf;\n",
}


def shown() -> str:
    """What both languages show: `scripts/check` compares them."""
    [text] = code_blocks(ROOT / "docs/siblings.md", "nginx")
    return text


@contextmanager
def site(text: str, folder: Path, *, wxauth: str, service: str) -> Iterator[httpx.Client]:
    port = free_port()
    addresses = {"127.0.0.1:8080": f"127.0.0.1:{port}", "127.0.0.1:8000": wxauth, "127.0.0.1:9000": service}
    with nginx_with(text, folder, addresses) as nginx:
        until(lambda: is_served(port) or nginx.process.poll() is not None)
        assert nginx.process.poll() is None, nginx.output
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client:
            yield client


@pytest.fixture
def wxauth_url(make_settings: Callable[..., Settings], clock: Clock) -> Iterator[str]:
    with serving(create_simulator()) as wechat_url:
        services = build_services(make_settings(apps=APPS, wechat_base_url=wechat_url), clock=clock)
        with serving(create_app(services)) as url:
            yield url


def test_the_configuration_shown_guards_a_service(wxauth_url: str, tmp_path: Path) -> None:
    login = httpx.post(f"{wxauth_url}/v1/login", json={"code": "alice"}, trust_env=False, verify=False).json()
    alice = bearer(login)
    with (
        serving(Recorder(echo), proxy_headers=False) as service,
        site(shown(), tmp_path, wxauth=urlsplit(wxauth_url).netloc, service=urlsplit(service).netloc) as client,
    ):
        answer = client.get("/orders/7?a=b", headers={**alice, "X-Auth-Roles": "clerk", "X-Auth-User-Id": "a"})
        assert answer.status_code == 200
        received = json.loads(answer.text)
        headers = dict(received["headers"])
        assert received["target"] == "/orders/7?a=b"
        assert headers["x-auth-user-id"] == login["user"]["id"]
        assert headers["x-auth-openid"] == login["user"]["openid"]
        assert "x-auth-roles" not in headers
        assert "authorization" not in headers

        refused = client.get("/orders", headers={"Accept-Language": "zh-CN"})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert (refused.json()["code"], refused.json()["title"]) == ("missing_token", "请先登录。")

        for path in ("/admin", "/Admin/a", "/admin.json"):
            lacking = client.get(path, headers=alice)
            assert (lacking.status_code, lacking.json()["code"]) == (403, "insufficient_role")


@pytest.mark.parametrize("piece", PIECES_TO_START.values(), ids=PIECES_TO_START)
def test_without_this_piece_nginx_does_not_start(piece: str, tmp_path: Path) -> None:
    with nginx_with(without(piece), tmp_path, {}) as nginx:
        until(lambda: nginx.process.poll() is not None)
        assert "[emerg]" in nginx.output


def test_without_server_conf_every_path_is_500(tmp_path: Path) -> None:
    text = without(r"include wxauth/server.conf; .*?\n")
    with site(text, tmp_path, wxauth="127.0.0.1:1", service="127.0.0.1:1") as client:
        assert [client.get(path).status_code for path in ("/", "/orders", "/admin")] == [500] * 3


def without(piece: str) -> str:
    text, count = re.subn(piece, "", shown(), flags=re.DOTALL)
    assert count
    return text
