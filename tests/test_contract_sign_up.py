"""Who may come in where nobody unknown may."""

from typing import Any

import asyncpg
import httpx
import pytest

from tests.fakes import APP, OTHER_APP, WeChatByRespx
from tests.problems import problem_of
from tests.world import LogLines, MakeClient, MakeServices

TABLES = ("users", "identities", "unionids", "sessions", "events")


@pytest.fixture
def open_client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The service of yesterday, open to everybody."""
    return client


async def log_in(
    client: httpx.AsyncClient,
    wechat: WeChatByRespx,
    person: str = "alice",
    *,
    app: dict[str, str] = APP,
    unionid: str | None = None,
) -> httpx.Response:
    code = wechat.code_for(person, app_id=app["app_id"], unionid=unionid)
    return await client.post("/v1/login", json={"code": code, "app_id": app["app_id"]})


async def stored(rows: asyncpg.Connection) -> dict[str, int]:
    return {table: await rows.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}


@pytest.mark.parametrize("unionid", [None, "union-alice"])
async def test_nothing_is_stored_of_somebody_unknown(
    make_services: MakeServices,
    make_client: MakeClient,
    wechat: WeChatByRespx,
    rows: asyncpg.Connection,
    log_lines: LogLines,
    unionid: str | None,
) -> None:
    client = make_client(await make_services(sign_up="closed"))
    problem_of(await log_in(client, wechat, unionid=unionid), "sign_up_closed", 403)
    assert set((await stored(rows)).values()) == {0}
    assert not any("openid-a1-alice" in str(line) for line in log_lines())


async def test_the_title_is_told_in_the_language_of_the_phone(
    make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx
) -> None:
    client = make_client(await make_services(sign_up="closed"))
    body = {"code": wechat.code_for("alice")}
    answer = await client.post("/v1/login", json=body, headers={"Accept-Language": "zh_CN"})
    assert answer.json()["title"] == "暂不开放新用户注册。"


async def test_who_is_known_comes_in(
    open_client: httpx.AsyncClient, make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx
) -> None:
    alice = (await log_in(open_client, wechat)).json()
    client = make_client(await make_services(sign_up="closed"))
    answer = (await log_in(client, wechat)).json()
    assert (answer["user"]["id"], answer["is_new_user"]) == (alice["user"]["id"], False)
    named = (await log_in(client, wechat, unionid="union-alice")).json()
    assert (named["user"]["id"], named["user"]["unionid"]) == (alice["user"]["id"], "union-alice")


async def test_who_is_known_by_the_unionid_comes_into_another_app(
    open_client: httpx.AsyncClient,
    make_services: MakeServices,
    make_client: MakeClient,
    wechat: WeChatByRespx,
    rows: asyncpg.Connection,
) -> None:
    alice = (await log_in(open_client, wechat, unionid="union-alice")).json()
    client = make_client(await make_services(sign_up="closed", apps=[APP, OTHER_APP]))
    answer = (await log_in(client, wechat, app=OTHER_APP, unionid="union-alice")).json()
    assert (answer["user"]["id"], answer["is_new_user"]) == (alice["user"]["id"], False)
    assert (await stored(rows))["identities"] == 2


async def test_a_unionid_of_somebody_who_has_another_openid_of_the_app_lets_nobody_in(
    open_client: httpx.AsyncClient,
    make_services: MakeServices,
    make_client: MakeClient,
    wechat: WeChatByRespx,
    rows: asyncpg.Connection,
) -> None:
    await log_in(open_client, wechat, unionid="union-alice")
    before = await stored(rows)
    client = make_client(await make_services(sign_up="closed"))
    problem_of(await log_in(client, wechat, "mallory", unionid="union-alice"), "sign_up_closed", 403)
    assert await stored(rows) == before


async def test_two_who_are_known_become_one_though_it_is_closed(
    open_client: httpx.AsyncClient, make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx
) -> None:
    client = make_client(await make_services(sign_up="open", apps=[APP, OTHER_APP]))
    await log_in(client, wechat)
    holder = (await log_in(client, wechat, app=OTHER_APP, unionid="union-alice")).json()
    closed = make_client(await make_services(sign_up="closed", apps=[APP, OTHER_APP]))
    answer = (await log_in(closed, wechat, unionid="union-alice")).json()
    assert answer["user"]["id"] == holder["user"]["id"]


@pytest.mark.parametrize(
    ("service", "app", "comes_in"),
    [("closed", "open", True), ("open", "closed", False), ("closed", None, False), ("open", "", True)],
)
async def test_the_apps_own_word_counts(
    make_services: MakeServices,
    make_client: MakeClient,
    wechat: WeChatByRespx,
    service: str,
    app: str | None,
    comes_in: bool,
) -> None:
    apps: list[dict[str, Any]] = [{**APP, "sign_up": app}]
    client = make_client(await make_services(sign_up=service, apps=apps))
    answer = await log_in(client, wechat)
    assert answer.status_code == (200 if comes_in else 403)


async def test_the_refusal_is_counted(
    make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx
) -> None:
    client = make_client(await make_services(sign_up="closed"))
    await log_in(client, wechat)
    metrics = (await client.get("/metrics")).text
    assert 'outcome="sign_up_closed"} 1.0' in metrics
