"""Operators can add their own claims to access tokens, with facts about the user as values."""

import asyncio
import json

import pytest
from jose.jwt import get_unverified_claims
from pydantic import ValidationError

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Admin, Body, LogIn, Stage, bearer, set_roles
from wxauth.keys.keyring import KeyRing
from wxauth.settings.apps import App
from wxauth.settings.claims import RESERVED_CLAIMS
from wxauth_guard import BearerGuard

HASURA = {
    "https://hasura.io/jwt/claims": {
        "x-hasura-user-id": "$user.id",
        "x-hasura-default-role": "user",
        "x-hasura-allowed-roles": "$user.roles",
    }
}


def added(answer: Body) -> Body:
    """Return the claims of an access token, without the claims that every token contains."""
    claims = get_unverified_claims(answer["access_token"])
    return {name: value for name, value in claims.items() if name not in RESERVED_CLAIMS}


async def test_a_token_has_the_claims_of_the_settings_filled_with_facts(stage: Stage) -> None:
    template = {**HASURA, "role": "authenticated", "price": "$$5", "app": ["$app_id", "$openid"]}
    stage = await stage.replica(claims=template)
    alice = await stage.login("alice")
    assert added(alice) == {
        "https://hasura.io/jwt/claims": {"x-hasura-user-id": alice["user"]["id"], "x-hasura-default-role": "user"},
        "role": "authenticated",
        "price": "$5",
        "app": [APP["app_id"], alice["user"]["openid"]],
    }
    await set_roles(stage.rows, "editor")
    refreshed = (await stage.refresh(alice)).json()
    assert added(refreshed)["https://hasura.io/jwt/claims"]["x-hasura-allowed-roles"] == ["editor"]


async def test_what_has_no_value_is_left_out(stage: Stage) -> None:
    facts = ["$user.external_id", "$user.unionid", "$user.roles", "$attributes.tier"]
    template = {
        "one": "$attributes.tier",
        "none": None,
        "empty": [],
        "list": [1, *facts],
        "object": {"a": facts, "b": 2},
    }
    login = (await stage.replica(claims=template)).login
    assert added(await login("alice")) == {"list": [1], "object": {"b": 2}}
    await stage.rows.execute("""UPDATE users SET attributes = '{"tier": [], "n": 1}', external_id = '7'""")
    assert added(await login("alice")) == {"list": [1, "7"], "object": {"a": ["7"], "b": 2}}
    await stage.rows.execute("""UPDATE users SET attributes = '{"tier": {"level": [null, false]}}'""")
    assert added(await login("alice"))["one"] == {"level": [None, False]}


async def test_what_a_person_can_write_is_no_fact(stage: Stage) -> None:
    login = (await stage.replica(claims={"$user.id": "$$user.id", "text": "id: $user.id"})).login
    assert added(await login("alice", nickname="$user.id")) == {"$user.id": "$user.id", "text": "id: $user.id"}
    for fact in ("$user.nickname", "$user.phone", "$user", "$", "$attributes", "$attributes.", "$attributes.A", "$id"):
        with pytest.raises(ValidationError, match="must refer only to"):
            App(app_id="wx1", app_secret="0" * 32, claims={"fact": fact})


@swept(
    "claims",
    [
        *({name: 1} for name in sorted(RESERVED_CLAIMS)),
        *({name: 1} for name in ("Sub", "SCOPE", "Roles", "role\u017f", "Exp", "\u017fub", "app_Id")),
        {"long": "x" * 1024},
        {"deep": [[]] * 60},
        {"": 1},
        {"nul": ["a\0"]},
        {"nul\0": 1},
        {"fact": {"within": ["$nickname"]}},
    ],
    ids=lambda claims: str(claims)[:30],
)
async def test_a_template_that_could_pretend_or_break_a_token_is_refused(root: Admin, claims: Body) -> None:
    app = {"app_id": "wx0123456789abcdef", "app_secret": "0" * 32, "check": False, "claims": claims}
    refused = problem_of(await root.ask("POST", "/apps", json=app), "invalid_request", 422)
    assert refused["errors"][0]["field"] == "claims"


async def test_an_apps_own_claims_take_the_place_of_those_of_the_settings(stage: Stage) -> None:
    apps: list[Body] = [APP, {**OTHER_APP, "claims": {"tenant": "b"}}]
    login = (await stage.replica(claims={"tenant": "a"}, apps=apps)).login
    assert [added(await login("alice", app=app)) for app in apps] == [{"tenant": "a"}, {"tenant": "b"}]
    apps[1]["claims"] = {}
    login = (await stage.replica(claims={"tenant": "a"}, apps=apps)).login
    assert [added(await login("alice", app=app)) for app in apps] == [{"tenant": "a"}, {}]


async def test_an_apps_claims_are_changed_while_the_service_runs(root: Admin, login: LogIn) -> None:
    app = {"app_id": "wx0123456789abcdef", "app_secret": "0" * 32}
    answer = await root.ask("POST", "/apps", json={**app, "check": False, "claims": {"tenant": "c"}})
    assert answer.json()["claims"] == {"tenant": "c"}
    assert added(await login("alice", app=app)) == {"tenant": "c"}
    assert (await root.ask("PATCH", f"/apps/{app['app_id']}", json={"claims": None})).json()["claims"] is None
    assert added(await login("alice", app=app)) == {}


@pytest.mark.parametrize("value", ["x" * 1200, "[" * 1200, [[]] * 100], ids=["long", "brackets", "lists"])
async def test_claims_that_a_guard_would_refuse_are_left_out_and_logged(stage: Stage, value: object) -> None:
    fact = "$attributes.x"
    stage = await stage.replica(claims={"one": fact, "two": fact, "three": [fact]})
    user_id = (await stage.login("alice"))["user"]["id"]
    await stage.rows.execute("UPDATE users SET attributes = jsonb_build_object('x', $1::jsonb)", json.dumps(value))
    alice = await stage.login("alice")
    assert added(alice) == {}
    assert (await stage.me(alice)).status_code == 200
    [line] = stage.logged("claims_left_out")
    assert line["user_id"] == user_id


async def test_guards_show_them_and_verify_does_not(stage: Stage) -> None:
    stage = await stage.replica(claims=HASURA)
    services, alice = stage.services, await stage.login("alice")
    verified = await stage.client.get("/v1/verify", headers=bearer(alice))
    assert (verified.status_code, "hasura" in str(verified.headers)) == (200, False)
    guard = BearerGuard(services.settings.issuer, keys=services[KeyRing], clock=lambda: stage.clock().timestamp())
    principal = await guard.verify(alice["access_token"])
    assert principal.claims["https://hasura.io/jwt/claims"]["x-hasura-user-id"] == alice["user"]["id"]


async def test_logins_at_once_are_filled_each_with_their_own_facts(stage: Stage) -> None:
    login = (await stage.replica(claims={"me": "$user.id"})).login
    people = await asyncio.gather(*(login(f"person-{n}") for n in range(10)))
    assert [added(each)["me"] for each in people] == [each["user"]["id"] for each in people]
