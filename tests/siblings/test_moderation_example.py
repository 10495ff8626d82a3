"""`examples/moderation` lets WeChat check names and pictures, and clears the risky ones through wxauth."""

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.fakes import service_env
from tests.headers import bearer
from tests.processes import WXAUTH, Running, environment, free_port, until
from tests.programs import ROOT, output_of
from tests.serving import serving
from wxauth_desk.wechat import APPS, Surroundings, create_simulator

pytestmark = pytest.mark.process

APP = APPS[1]
SCOPES = ("events", "users", "access_token", "moderate")


@dataclass(frozen=True, slots=True)
class Moderated:
    """wxauth, WeChat, and the service that lets WeChat check profiles."""

    wxauth_url: str
    wechat_url: str
    url: str
    state: Path

    def stored(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.state)) as database:
            return database.execute(sql).fetchall()

    def ask(self, method: str, path: str, **request: Any) -> Any:
        answer = httpx.request(method, self.wxauth_url + path, **request, trust_env=False, verify=False)
        return answer.raise_for_status()

    def log_in(self, person: str, **profile: str) -> Any:
        return self.ask("POST", "/v1/login", json={"code": person, **profile}).json()

    def me(self, login: Any) -> Any:
        return self.ask("GET", "/v1/me", headers=bearer(login)).json()

    def upload(self, login: Any) -> str:
        Image.new("RGB", (8, 8), (200, 0, 0)).save(picture := BytesIO(), "PNG")
        files = {"file": ("a.png", picture.getvalue(), "image/png")}
        return str(self.ask("POST", "/v1/me/avatar", files=files, headers=bearer(login)).json()["avatar_url"])

    def set_verdict(self, verdict: str | None) -> None:
        body = {"app_id": APP["app_id"], "picture_verdict": verdict}
        httpx.post(f"{self.wechat_url}/accounts", json=body, trust_env=False, verify=False).raise_for_status()


@pytest.fixture
def moderated(tmp_path: Path, database_url: str) -> Iterator[Moderated]:
    port, own_port = free_port(), free_port()
    url, own_url = (f"http://127.0.0.1:{each}" for each in (port, own_port))
    apps = [{**APP, "push_forward": f"{own_url}/wechat"}]
    with serving(create_simulator(around=Surroundings(service_url=url))) as wechat_url:
        settings = service_env(database_url, apps=apps, wechat_base_url=wechat_url, port=port, issuer=url)
        with Running(WXAUTH, "serve", cwd=tmp_path, env=settings) as service:
            service.wait_for('"started"')
            scopes = [part for scope in SCOPES for part in ("--scope", scope)]
            add = (WXAUTH, "clients", "add", "moderation", "--json", *scopes)
            added = json.loads(output_of(*add, cwd=tmp_path, env=environment(**settings)))
            env = {"WXAUTH_ISSUER": url, "WECHAT": wechat_url, "APP_ID": APP["app_id"]}
            env |= {name.upper(): added[name] for name in ("client_id", "client_secret")}
            env |= {"PUSH_TOKEN": APP["push_token"], "PUSH_AES_KEY": APP["push_aes_key"]}
            uvicorn = (sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(ROOT / "examples/moderation"))
            with Running(*uvicorn, "--port", str(own_port), cwd=tmp_path, env=env) as process:
                process.wait_for("Uvicorn running")
                moderated = Moderated(url, wechat_url, own_url, tmp_path / "moderation.sqlite")
                until(lambda: moderated.stored("SELECT value FROM cursor"))  # from now on, the service misses no event
                yield moderated


def test_a_risky_name_is_cleared_and_a_good_one_stays(moderated: Moderated) -> None:
    good = moderated.log_in("bob", nickname="小明")
    bad = moderated.log_in("alice", nickname="risky name")
    until(lambda: moderated.me(bad)["nickname"] is None)
    assert moderated.me(good)["nickname"] == "小明"
    moderated.ask("PATCH", "/v1/me", json={"nickname": "违规"}, headers=bearer(good))
    until(lambda: moderated.me(good)["nickname"] is None)


def test_a_risky_picture_is_cleared_and_a_good_one_stays(moderated: Moderated) -> None:
    carol, dave = moderated.log_in("carol"), moderated.log_in("dave")
    good = moderated.upload(dave)
    until(lambda: moderated.stored(f"SELECT * FROM asked WHERE avatar_url = '{good}'"))
    moderated.set_verdict("risky")
    bad = moderated.upload(carol)
    until(lambda: moderated.me(carol)["avatar_url"] is None)
    assert moderated.ask("GET", good.removeprefix(moderated.wxauth_url)).status_code == 200
    gone = httpx.get(bad, trust_env=False, verify=False)
    assert (gone.status_code, moderated.me(dave)["avatar_url"]) == (404, good)


def test_a_message_that_is_not_wechats_is_refused(moderated: Moderated) -> None:
    query = {"timestamp": "1", "nonce": "2", "msg_signature": "3"}
    answer = httpx.post(f"{moderated.url}/wechat", params=query, json={"Encrypt": "AAAA"}, trust_env=False)
    assert answer.status_code == 403
