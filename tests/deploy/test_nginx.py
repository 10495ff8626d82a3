"""With `deploy/nginx`, nginx serves TLS in front of two replicas, which can be restarted in turn."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import Replicas, restart_in_turn
from tests.deploy.shipped_nginx import TEXT, Front, shipped_nginx
from tests.docs import ROOT, both_languages, code_blocks, guide
from tests.proxies.longest import add_site, check_longest
from tests.world import bearer
from wxauth.core.services import Services

pytestmark = pytest.mark.proxy

OFFICE = re.sub(r"(?ms)^ +#location .*?^ +#\}$", lambda rule: re.sub("(?m)^( +)#", r"\1", rule[0]), TEXT)
"""The configuration with the active rule that opens the console only to the office network."""


@pytest.fixture
def nginx(request: pytest.FixtureRequest, tmp_path: Path, replicas: Replicas) -> Iterator[Front]:
    with shipped_nginx(tmp_path, replicas.addresses, getattr(request, "param", TEXT)) as front:
        yield front


def test_replicas_restarted_in_turn_fail_no_request(nginx: Front, replicas: Replicas) -> None:
    seen = restart_in_turn(replicas, nginx.client)
    assert set(seen) == {"200"}, seen


def test_an_answer_and_the_logs_of_both_have_one_request_id(nginx: Front, replicas: Replicas, tmp_path: Path) -> None:
    with nginx.client() as client:
        answer = client.post("/v1/login", json={"code": "alice"}, headers={"X-Forwarded-For": "203.0.113.9"})
        refused = client.get("/v1/scans/a-scene-that-nobody-may-read/code", params={"code": "nor-this"})
        hidden = [client.get(path) for path in ("/metrics", "/readyz", "/auth/metrics", "//readyz", "/%6Detrics")]
        [session] = client.get("/v1/me/sessions", headers=bearer(answer.json())).json()["items"]
        too_long = client.get("/v1/me", headers=bearer("a" * 8192))
    assert session["ip"] == "127.0.0.1", "what the client says of itself does not count"
    assert too_long.json()["code"] == "invalid_token", "wxauth itself says what is wrong with the longest token"
    request_id = answer.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    [line] = [line for line in lines if line["request_id"] == request_id]
    assert (line["method"], line["path"], line["status"], line["client"]) == ("POST", "/v1/login", "200", "127.0.0.1")
    assert sum(f'"request_id":"{request_id}"' in replica.output for replica in replicas.running) == 1
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"]
    assert not re.search("nobody-may-read|nor-this", (tmp_path / "access.log").read_text())
    for nginxs_own in hidden:
        assert (nginxs_own.status_code, len(nginxs_own.headers.get_list("X-Request-ID"))) == (404, 1)


@pytest.mark.parametrize("nginx", [OFFICE], indirect=True, ids=["outside"])
def test_the_console_can_be_closed_to_all_but_the_office(nginx: Front) -> None:
    closed = (
        "/admin",
        "/admin/",
        "/admin/page.js",
        "/v1/admin",
        "/v1/admin/users",
        "/auth/v1/admin/users",
        "/auth/admin/",
        "//v1/admin/users",
        "/v1//admin/users",
        "/v1/%61dmin/users",
        "/v1%2fadmin/users",
        "/v1/admin/users/..",
        "/v1/me/../admin/users",
    )
    with nginx.client() as client:
        for path in closed:
            answer = client.get(path)
            assert (answer.status_code, answer.headers["Content-Type"]) == (403, "text/html"), path
        assert client.post("/v1/admin/apps").status_code == 403
        assert client.post("/v1/login", json={"code": "alice"}).status_code == 200
        assert [client.get(path).status_code for path in ("/v1/me", "/v1/administrators")] == [401, 404]


@pytest.mark.parametrize("nginx", [OFFICE.replace("203.0.113.0/24", "127.0.0.1")], indirect=True, ids=["inside"])
def test_the_office_reaches_the_console_as_it_does_all_else(nginx: Front) -> None:
    with nginx.client() as client:
        answer = client.get("/v1/admin/users")
    assert answer.status_code == 401
    assert [answer.json()["request_id"]] == answer.headers.get_list("X-Request-ID"), "is wxauth's, with nginx's headers"


async def test_the_longest_request_of_a_site_comes_back_whole(nginx: Front, services: Services) -> None:
    await add_site(services)
    with nginx.client() as client:
        await asyncio.to_thread(check_longest, client)


@both_languages
def test_the_guide_shows_the_files_directives(language: str) -> None:
    own = {line.split("#")[0].strip() for line in TEXT.splitlines()}
    [shown] = code_blocks(guide("operations", language), "nginx")
    assert [line for line in shown.splitlines() if line.split("#")[0].strip() not in own] == []


@pytest.mark.parametrize("file", ["kubernetes/ingress.yaml", "sealos/index.yaml"])
def test_an_ingress_has_the_same_buffers(file: str) -> None:
    [size] = re.findall(r"^        proxy_buffer_size (\w+);$", TEXT, re.MULTILINE)
    assert f"nginx.ingress.kubernetes.io/proxy-buffer-size: {size}\n" in (ROOT / "deploy" / file).read_text()
