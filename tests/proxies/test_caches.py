"""wxauth works behind a proxy that caches although the responses forbid it, like the nginx configuration of 1Panel."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import Clock
from tests.headers import bearer
from tests.processes import free_port, is_served, serving, until
from tests.proxies.running import nginx_with
from wxauth.checks.issuer import check_issuer
from wxauth.checks.result import CheckLevel, Findings
from wxauth.service.app import create_app
from wxauth.service.build import build_services
from wxauth.settings.settings import Settings
from wxauth_desk.wechat import APPS, create_simulator

pytestmark = pytest.mark.proxy

AS_1PANEL = """
proxy_cache_path {folder}/cache levels=1:2 keys_zone=proxy_cache_panel:1m;
server {
    listen 127.0.0.1:8080;
    location ^~ / {
        proxy_pass http://127.0.0.1:8000;
        proxy_set_header Host $http_host;
        proxy_ignore_headers Set-Cookie Cache-Control expires;
        proxy_cache proxy_cache_panel;
        proxy_cache_key $host$uri$is_args$args;
        proxy_cache_valid 200 304 301 302 10m;
    }
}
"""


@pytest.fixture
def issuer(make_settings: Callable[..., Settings], clock: Clock, tmp_path: Path) -> Iterator[str]:
    """The URL of wxauth behind a proxy that caches."""
    port = free_port()
    with ExitStack() as stack:
        wechat_url = stack.enter_context(serving(create_simulator()))
        issuer = f"http://127.0.0.1:{port}"
        settings = make_settings(apps=APPS, wechat_base_url=wechat_url, issuer=issuer)
        url = stack.enter_context(serving(create_app(build_services(settings, clock=clock))))
        text = AS_1PANEL.replace("{folder}", str(tmp_path))
        addresses = {"127.0.0.1:8080": f"127.0.0.1:{port}", "127.0.0.1:8000": url.removeprefix("http://")}
        nginx = stack.enter_context(nginx_with(text, tmp_path, addresses))
        until(lambda: is_served(port) or nginx.process.poll() is not None)
        assert nginx.process.poll() is None, nginx.output
        yield issuer


async def test_nobody_gets_anothers_answer_even_then_and_the_check_reports_it(issuer: str) -> None:
    async with httpx.AsyncClient(base_url=issuer, trust_env=False) as cached:
        for login in [(await cached.post("/v1/login", json={"code": name})).json() for name in ("erin", "frank")]:
            for _ in range(2):
                assert (await cached.get("/v1/me", headers=bearer(login))).json()["id"] == login["user"]["id"]
                verified = await cached.get("/v1/verify", headers=bearer(login))
                assert verified.headers["X-Auth-User-Id"] == login["user"]["id"]
        strangers: list[dict[str, Any]] = [{}, bearer("x")]
        for headers in strangers:
            for path in ("/v1/me", "/v1/verify"):
                assert (await cached.get(path, headers=headers)).status_code == 401

    [result] = [each async for each in check_issuer(issuer, Findings(), now=datetime.now(UTC), patience=3)]
    assert result.level is CheckLevel.BAD
    assert "repeats an X-Request-ID" in result.text
    assert "proxy_cache" in result.text.translated("zh-CN")
