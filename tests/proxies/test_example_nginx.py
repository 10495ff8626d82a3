"""`examples/nginx` works with `wxauth-desk dev` when both are started as its README shows."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.problems import problem_of
from tests.processes import PATIENCE, WXAUTH_DESK, Running, free_port, is_served, until
from tests.programs import ROOT, needs, run_node_tests
from tests.world import bearer

pytestmark = [pytest.mark.proxy, pytest.mark.process]

DRAFTS = "/members/editors/drafts.html"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    """A running `wxauth-desk dev` and its address. It might not be ready yet."""
    port = free_port()
    command = (WXAUTH_DESK, "dev", "--port", str(port), "--wechat-port", str(free_port()), "--allow-host", "wxauth")
    with Running(*command, cwd=tmp_path_factory.mktemp("dev")) as service:
        yield service, f"127.0.0.1:{port}"
        service.end(signal.SIGTERM)


@contextmanager
def running_site(wxauth: str, folder: Path) -> Iterator[httpx.Client]:
    needs("nginx")
    port = free_port()
    env = {"PORT": str(port), "WXAUTH": wxauth}
    with (
        Running(str(ROOT / "examples/nginx/run"), cwd=folder, env=env) as nginx,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client,
    ):
        nginx.wait_for(f"http://127.0.0.1:{port}")
        until(lambda: is_served(port))
        try:
            yield client
        finally:
            assert nginx.end(signal.SIGINT) == 0, nginx.output


@pytest.fixture(scope="module")
def site(dev: tuple[Running, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    service, address = dev
    with running_site(address, tmp_path_factory.mktemp("nginx")) as client:
        service.wait_for("wxauth is ready")
        yield client


@pytest.fixture(scope="module")
def login(site: httpx.Client) -> httpx.Response:
    return site.post("/v1/login", json={"code": "alice"})


@pytest.fixture(scope="module")
def alice(login: httpx.Response) -> dict[str, str]:
    return bearer(login.json())


def status_of(site: httpx.Client, path: str) -> int:
    """Return the status for exactly this path. httpx would normalize the path of a URL."""
    return site.send(site.build_request("GET", "/", extensions={"target": path.encode()})).status_code


def test_the_public_pages_are_there_for_anyone(site: httpx.Client) -> None:
    for path, kind in {"/": "text/html", "/site.js": "text/javascript", "/style.css": "text/css"}.items():
        answer = site.get(path)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)


def test_the_members_area_requires_a_login(site: httpx.Client, alice: dict[str, str]) -> None:
    refused = site.get("/members/", headers={"Accept-Language": "zh-CN"})
    assert problem_of(refused, "missing_token", 401)["title"] == "请先登录。"
    assert refused.headers["www-authenticate"] == "Bearer"
    let_in = site.get("/members/", headers=alice)
    assert (let_in.status_code, let_in.headers["cache-control"]) == (200, "no-cache")
    assert "凤凰单丛" in let_in.text


def test_no_spelling_of_a_path_bypasses_the_guard_or_reaches_more_of_wxauth(site: httpx.Client) -> None:
    ambiguous = ("/index.html/../members/index.html", "//members/", "/members%2findex.html", "/v1/login/../verify")
    hidden = ("/Members/", "/v1/verify", "/v1/me", "/v1/admin/users", "/metrics", "/docs", "/_wxauth/")
    expected = dict.fromkeys(ambiguous, 400) | dict.fromkeys(hidden, 404)
    assert {path: status_of(site, path) for path in expected} == expected


def test_the_drafts_are_for_editors_from_the_moment_they_are(
    dev: tuple[Running, str], site: httpx.Client, login: httpx.Response, alice: dict[str, str]
) -> None:
    problem_of(site.get(DRAFTS), "missing_token", 401)
    problem_of(site.get(DRAFTS, headers=alice), "insufficient_role", 403)
    [grant] = [line for line in dev[0].output.splitlines() if "users grant" in line]
    grant = (
        grant.replace('"$USER_ID"', "$USER_ID")
        .replace("$USER_ID", login.json()["user"]["id"])
        .replace("admin", "editor")
    )
    subprocess.run(["sh", "-e", "-c", grant], capture_output=True, check=True, timeout=PATIENCE)
    assert "春茶" in site.get(DRAFTS, headers=alice).text


@pytest.mark.browser
@pytest.mark.node
def test_the_page_in_a_browser(site: httpx.Client) -> None:
    env = {"CHROMIUM": needs("chromium-headless-shell", "chromium"), "SITE_URL": str(site.base_url)}
    run_node_tests("site/members.test.js", env)
