"""`wxauth-desk dev` works with the developer's own app. In these tests, a simulator replaces the real WeChat."""

import os
import pty
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.problems import problem_of
from tests.processes import PATIENCE, WXAUTH_DESK, Running, free_port, run, serving
from tests.world import bearer, body_of
from wxauth_desk.wechat import APPS, Simulator, create_simulator

pytestmark = pytest.mark.process

Starts = Callable[..., str]

OWN = {"WXAUTH_APP_ID": APPS[0]["app_id"], "WXAUTH_APP_SECRET": APPS[0]["app_secret"]}


@pytest.fixture(scope="module")
def wechat_url() -> Iterator[str]:
    with serving(create_simulator(Simulator(takes_names=False))) as url:
        yield url


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def dev(wechat_url: str, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run `wxauth-desk dev` in its own folder, with an address that other machines can reach."""
    env = {**OWN, "WXAUTH_WECHAT_BASE_URL": wechat_url, "WXAUTH_HOST": "0.0.0.0", "WXAUTH_PORT": str(port)}
    with Running(WXAUTH_DESK, "dev", cwd=tmp_path_factory.mktemp("own"), env=env) as command:
        command.wait_for("Press Ctrl-C to stop")
        yield command


@pytest.fixture
def client(dev: Running, port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False, verify=False) as client:
        yield client


def code_for(person: str, wechat_url: str) -> str:
    """Return a code of this person, such as `wx.login` returns."""
    return str(httpx.post(f"{wechat_url}/codes", json={"person": person}, verify=False).json()["code"])


def test_a_code_of_ones_own_app_logs_in_and_the_phone_number_comes_along(client: httpx.Client, wechat_url: str) -> None:
    whose = {"person": "alice", "phone": "13800138000"}
    phone_code = httpx.post(f"{wechat_url}/phone-codes", json=whose, verify=False).json()["code"]
    body = {"code": code_for("alice", wechat_url), "app_id": OWN["WXAUTH_APP_ID"], "phone_code": phone_code}
    answer = body_of(client.post("/v1/login", json=body))
    me = client.get("/v1/me", headers=bearer(answer["access_token"])).json()
    assert (me["app_id"], me["phone"]) == (OWN["WXAUTH_APP_ID"], "+8613800138000")


def test_beside_ones_own_app_nothing_knows_of_a_simulation(dev: Running, client: httpx.Client, wechat_url: str) -> None:
    problem_of(client.post("/v1/login", json={"code": "bob", "app_id": APPS[1]["app_id"]}), "unknown_app", 400)
    unknown = problem_of(client.post("/v1/login", json={"code": "0-nobody"}), "invalid_code", 400)
    assert "simulated" not in unknown["detail"]
    assert client.get("/").headers["location"] == f"{client.base_url}/docs"
    app_id = OWN["WXAUTH_APP_ID"]
    real = "wxauth is ready, with the real WeChat.\n", f"  WeChat      {wechat_url}\n"
    for text in (*real, f"ok    wechat {app_id}: ", f"ok    wechat {app_id} access_token: "):
        assert text in dev.output
    for text in ("BAD  ", OWN["WXAUTH_APP_SECRET"], "/desk/", "alice"):
        assert text not in dev.output


def test_the_banner_has_the_address_for_a_phone_in_the_same_network(dev: Running, port: int) -> None:
    _, found, rest = dev.output.partition("On a phone in this network")
    if not found:
        pytest.skip("this machine is in no network")
    url = rest.partition("baseURL: '")[2].partition("'")[0]
    assert url.endswith(f":{port}")
    assert "127.0.0.1" not in url
    with httpx.Client(trust_env=False, verify=False) as phone:
        assert phone.get(f"{url}/livez").status_code == 200


@pytest.mark.no_signing_key
@pytest.mark.parametrize(
    ("locale", "words", "end"),
    [
        ("C.UTF-8", "the AppSecret is wrong", "Press Ctrl-C to stop"),
        ("zh_CN.UTF-8", "AppSecret 不正确", "按 Ctrl-C 停止"),
    ],
)
def test_a_secret_that_wechat_refuses_is_reported_at_the_start(
    wechat_url: str, database_url: str, tmp_path: Path, locale: str, words: str, end: str
) -> None:
    env = {**OWN, "WXAUTH_APP_SECRET": "an-old-one", "WXAUTH_WECHAT_BASE_URL": wechat_url, "LC_ALL": locale}
    env |= {"WXAUTH_DATABASE_URL": database_url, "WXAUTH_PORT": str(free_port())}
    with Running(WXAUTH_DESK, "dev", cwd=tmp_path, env=env) as command:
        output = command.wait_for(end)
        assert f"BAD   wechat {OWN['WXAUTH_APP_ID']}: {words}" in output
        assert "an-old-one" not in output
        assert command.end(signal.SIGTERM) == 0


@pytest.fixture
def starts(wechat_url: str, database_url: str, tmp_path: Path, terminal: tuple[int, int]) -> Starts:
    """Return a function that starts `dev` with only the app id, and returns its output until it is ready.

    The function can type an answer at the terminal.
    """
    env = {"WXAUTH_APP_ID": OWN["WXAUTH_APP_ID"], "WXAUTH_WECHAT_BASE_URL": wechat_url}
    env |= {"WXAUTH_DATABASE_URL": database_url, "WXAUTH_PORT": str(free_port())}

    def start(typed: str | None = None) -> str:
        with Running(WXAUTH_DESK, "dev", cwd=tmp_path, env=env, stdin=terminal[1]) as command:
            if typed is not None:
                command.wait_for("AppSecret of")
                os.write(terminal[0], f"{typed}\n".encode())
            output = command.wait_for("Press Ctrl-C to stop")
            assert command.end(signal.SIGTERM) == 0
        return output

    return start


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Make a terminal, and return the user's end and the program's end."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.no_signing_key
def test_a_terminal_asks_for_the_secret_unseen_once(starts: Starts, tmp_path: Path, terminal: tuple[int, int]) -> None:
    secret, kept = OWN["WXAUTH_APP_SECRET"], tmp_path / f".wxauth/app_secret_{OWN['WXAUTH_APP_ID']}"
    assert "BAD  " in starts("a-wrong-one")
    assert not kept.exists()
    said = starts(secret)
    assert f"ok    wechat {OWN['WXAUTH_APP_ID']}: " in said
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == (secret, 0o600)
    os.set_blocking(terminal[0], False)
    with suppress(BlockingIOError):
        said += os.read(terminal[0], 4096).decode()
    assert secret not in said
    assert "AppSecret of" not in starts()


@pytest.mark.parametrize("given", OWN)
def test_an_app_id_and_its_secret_are_required_together(given: str, tmp_path: Path) -> None:
    failed = run("dev", cwd=tmp_path, env={given: OWN[given]})
    assert failed.returncode == 1
    assert failed.stderr == "WXAUTH_APP_ID and WXAUTH_APP_SECRET: must both be set, unless you use WXAUTH_APPS\n"
