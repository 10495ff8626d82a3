"""`SIGN_UP`: who may log in while sign-up is closed."""

from typing import Any

import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import LogIn, LogLines, MakeClient, MakeServices, Rows

TABLES = ("users", "identities", "unionids", "sessions", "events")


async def stored(rows: Rows) -> dict[str, int]:
    return {table: await rows.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}


@pytest.mark.parametrize("unionid", [None, "union-alice"])
async def test_nothing_is_stored_about_an_unknown_person(
    login: LogIn,
    make_services: MakeServices,
    make_client: MakeClient,
    rows: Rows,
    log_lines: LogLines,
    unionid: str | None,
) -> None:
    client = make_client(await make_services(sign_up="closed"))
    problem_of(await login.ask(at=client, unionid=unionid), "sign_up_closed", 403)
    assert set((await stored(rows)).values()) == {0}
    assert not any("openid-a1-alice" in str(line) for line in log_lines())


async def test_a_known_person_logs_in(login: LogIn, make_services: MakeServices, make_client: MakeClient) -> None:
    alice = await login()
    client = make_client(await make_services(sign_up="closed"))
    answer = await login(at=client)
    assert (answer["user"]["id"], answer["is_new_user"]) == (alice["user"]["id"], False)
    named = await login(at=client, unionid="union-alice")
    assert (named["user"]["id"], named["user"]["unionid"]) == (alice["user"]["id"], "union-alice")


async def test_a_person_known_by_the_unionid_logs_in_to_another_app(
    login: LogIn, make_services: MakeServices, make_client: MakeClient, rows: Rows
) -> None:
    alice = await login(unionid="union-alice")
    client = make_client(await make_services(sign_up="closed", apps=[APP, OTHER_APP]))
    answer = await login(at=client, app=OTHER_APP, unionid="union-alice")
    assert (answer["user"]["id"], answer["is_new_user"]) == (alice["user"]["id"], False)
    assert (await stored(rows))["identities"] == 2


async def test_a_unionid_of_somebody_who_has_another_openid_of_the_app_lets_nobody_in(
    login: LogIn, make_services: MakeServices, make_client: MakeClient, rows: Rows
) -> None:
    await login.ask(unionid="union-alice")
    before = await stored(rows)
    client = make_client(await make_services(sign_up="closed"))
    problem_of(await login.ask("mallory", at=client, unionid="union-alice"), "sign_up_closed", 403)
    assert await stored(rows) == before


async def test_two_known_users_are_merged_although_sign_up_is_closed(
    login: LogIn, make_services: MakeServices, make_client: MakeClient
) -> None:
    client = make_client(await make_services(sign_up="open", apps=[APP, OTHER_APP]))
    await login.ask(at=client)
    holder = await login(at=client, app=OTHER_APP, unionid="union-alice")
    closed = make_client(await make_services(sign_up="closed", apps=[APP, OTHER_APP]))
    answer = await login(at=closed, unionid="union-alice")
    assert answer["user"]["id"] == holder["user"]["id"]


@pytest.mark.parametrize(
    ("service", "app", "comes_in"),
    [("closed", "open", True), ("open", "closed", False), ("closed", None, False), ("open", "", True)],
)
async def test_the_sign_up_of_an_app_overrides_that_of_the_service(
    login: LogIn, make_services: MakeServices, make_client: MakeClient, service: str, app: str | None, comes_in: bool
) -> None:
    apps: list[dict[str, Any]] = [{**APP, "sign_up": app}]
    client = make_client(await make_services(sign_up=service, apps=apps))
    answer = await login.ask(at=client)
    assert answer.status_code == (200 if comes_in else 403)
