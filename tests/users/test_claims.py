"""Claims of the operator's own in access tokens, filled with facts about the user."""

import asyncio
import json
from typing import Any

import pytest
from jose.jwt import get_unverified_claims
from pydantic import ValidationError

from tests.fakes import APP, OTHER_APP, Clock
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import AddSibling, Admin, Body, LogIn, LogLines, MakeClient, MakeServices, Rows, bearer, set_roles
from wxauth.guard import BearerGuard
from wxauth.server.clients.models import Scope
from wxauth.server.core.settings import App
from wxauth.server.core.users import RESERVED_CLAIMS
from wxauth.server.keys.keyring import KeyRing

HASURA = {
    "https://hasura.io/jwt/claims": {
        "x-hasura-user-id": "$user.id",
        "x-hasura-default-role": "user",
        "x-hasura-allowed-roles": "$user.roles",
    }
}


def added(answer: Body) -> dict[str, Any]:
    """The claims of a token beyond those of every token."""
    claims = get_unverified_claims(answer["access_token"])
    return {name: value for name, value in claims.items() if name not in RESERVED_CLAIMS}


@pytest.fixture
def logging_in(make_services: MakeServices, make_client: MakeClient, login: LogIn) -> Any:
    async def made(**settings: Any) -> LogIn:
        return LogIn(make_client(await make_services(**settings)), login.wechat)

    return made


async def test_a_token_has_the_claims_of_the_settings_filled_with_facts(logging_in: Any, rows: Rows) -> None:
    login = await logging_in(claims={**HASURA, "role": "authenticated", "price": "$$5", "app": ["$app_id", "$openid"]})
    alice = await login("alice")
    assert added(alice) == {
        "https://hasura.io/jwt/claims": {"x-hasura-user-id": alice["user"]["id"], "x-hasura-default-role": "user"},
        "role": "authenticated",
        "price": "$5",
        "app": [APP["app_id"], alice["user"]["openid"]],
    }
    await set_roles(rows, "editor")
    refreshed = (await login.client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})).json()
    assert added(refreshed)["https://hasura.io/jwt/claims"]["x-hasura-allowed-roles"] == ["editor"]


async def test_what_has_no_value_is_left_out(logging_in: Any, rows: Rows) -> None:
    facts = ["$user.external_id", "$user.unionid", "$user.roles", "$attributes.tier"]
    template = {
        "one": "$attributes.tier",
        "none": None,
        "empty": [],
        "list": [1, *facts],
        "object": {"a": facts, "b": 2},
    }
    login = await logging_in(claims=template)
    assert added(await login("alice")) == {"list": [1], "object": {"b": 2}}
    await rows.execute("""UPDATE users SET attributes = '{"tier": [], "n": 1}', external_id = '7'""")
    assert added(await login("alice")) == {"list": [1, "7"], "object": {"a": ["7"], "b": 2}}
    await rows.execute("""UPDATE users SET attributes = '{"tier": {"level": [null, false]}}'""")
    assert added(await login("alice"))["one"] == {"level": [None, False]}


async def test_what_a_person_can_write_is_no_fact(logging_in: Any) -> None:
    login = await logging_in(claims={"$user.id": "$$user.id", "text": "id: $user.id"})
    assert added(await login("alice", nickname="$user.id")) == {"$user.id": "$user.id", "text": "id: $user.id"}
    for fact in ("$user.nickname", "$user.phone", "$user", "$", "$attributes", "$attributes.", "$attributes.A", "$id"):
        with pytest.raises(ValidationError, match="must have no other facts"):
            App(app_id="wx1", app_secret="0" * 32, claims={"fact": fact})


@swept(
    "claims",
    [
        *({name: 1} for name in sorted(RESERVED_CLAIMS)),
        {"long": "x" * 1024},
        {"deep": [[]] * 60},
        {"": 1},
        {"nul": ["a\0"]},
        {"nul\0": 1},
        {"fact": {"within": ["$nickname"]}},
    ],
    ids=lambda claims: str(claims)[:30],
)
async def test_a_template_that_could_pretend_or_break_a_token_is_refused(root: Admin, claims: dict[str, Any]) -> None:
    app = {"app_id": "wx0123456789abcdef", "app_secret": "0" * 32, "check": False, "claims": claims}
    refused = problem_of(await root.ask("POST", "/apps", json=app), "invalid_request", 422)
    assert refused["errors"][0]["field"] == "claims"


async def test_an_apps_own_claims_take_the_place_of_those_of_the_settings(
    logging_in: Any, make_services: MakeServices
) -> None:
    apps: list[Body] = [APP, {**OTHER_APP, "claims": {"tenant": "b"}}]
    login = await logging_in(claims={"tenant": "a"}, apps=apps)
    assert [added(await login("alice", app=app)) for app in apps] == [{"tenant": "a"}, {"tenant": "b"}]
    apps[1]["claims"] = {}
    login = await logging_in(claims={"tenant": "a"}, apps=apps)
    assert [added(await login("alice", app=app)) for app in apps] == [{"tenant": "a"}, {}]


async def test_an_apps_claims_are_changed_while_the_service_runs(root: Admin, login: LogIn) -> None:
    app = {"app_id": "wx0123456789abcdef", "app_secret": "0" * 32}
    answer = await root.ask("POST", "/apps", json={**app, "check": False, "claims": {"tenant": "c"}})
    assert answer.json()["claims"] == {"tenant": "c"}
    assert added(await login("alice", app=app)) == {"tenant": "c"}
    changed = await root.ask("PATCH", f"/apps/{app['app_id']}", json={"claims": None})
    assert changed.json()["claims"] is None
    assert added(await login("alice", app=app)) == {}


@pytest.mark.parametrize("value", ["x" * 1200, "[" * 1200, [[]] * 650], ids=["long", "brackets", "lists"])
async def test_claims_that_a_guard_would_refuse_are_left_out_and_the_log_says_whose(
    logging_in: Any, rows: Rows, log_lines: LogLines, value: object
) -> None:
    login = await logging_in(claims={"one": "$attributes.x", "two": "$attributes.x", "three": ["$attributes.x"]})
    user_id = (await login("alice"))["user"]["id"]
    await rows.execute("UPDATE users SET attributes = jsonb_build_object('x', $1::jsonb)", json.dumps(value))
    alice = await login("alice")
    assert added(alice) == {}
    assert (await login.client.get("/v1/me", headers=bearer(alice))).status_code == 200
    [line] = [line for line in log_lines() if line["event"] == "claims_left_out"]
    assert line["user_id"] == user_id


async def test_guards_and_introspection_show_them_and_verify_does_not(
    make_services: MakeServices, make_client: MakeClient, login: LogIn, add_sibling: AddSibling, clock: Clock
) -> None:
    services = await make_services(claims=HASURA)
    login = LogIn(make_client(services), login.wechat)
    alice = await login("alice")
    sibling = await add_sibling("orders", Scope.INTROSPECT)
    form = {"token": alice["access_token"]}
    introspected = (await login.client.post("/v1/introspect", data=form, auth=sibling)).json()
    assert introspected["https://hasura.io/jwt/claims"] == added(alice)["https://hasura.io/jwt/claims"]
    verified = await login.client.get("/v1/verify", headers=bearer(alice))
    assert (verified.status_code, "hasura" in str(verified.headers)) == (200, False)
    guard = BearerGuard(services.settings.issuer, keys=services[KeyRing], clock=lambda: clock().timestamp())
    principal = await guard.verify(alice["access_token"])
    assert principal.claims["https://hasura.io/jwt/claims"]["x-hasura-user-id"] == alice["user"]["id"]
    with pytest.raises(TypeError):
        principal.claims["role"] = "admin"  # type: ignore[index]


async def test_logins_at_once_are_filled_each_with_their_own_facts(logging_in: Any) -> None:
    login = await logging_in(claims={"me": "$user.id"})
    people = await asyncio.gather(*(login(f"person-{n}") for n in range(10)))
    assert [added(each)["me"] for each in people] == [each["user"]["id"] for each in people]
