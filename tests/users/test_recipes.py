"""The guide's recipes for claims follow the rules of the products that read them."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import jwt
import pytest
from jose.jwt import get_unverified_claims

from tests.docs import both_languages, code_blocks, guide, table
from tests.world import Body, LogIn, Rows, Stage, set_roles

Session = dict[str, str]


def settings_of(shown: str) -> Body:
    """Return the settings in the guide's code block for Hasura, by name."""
    assigned = dict(re.findall(r"^WXAUTH_(\w+)=(.*)$", shown, re.MULTILINE))
    return {"claims": json.loads(assigned["CLAIMS"].strip("'")), "sign_up_roles": assigned["SIGN_UP_ROLES"].split(",")}


def recipe(language: str, product: str) -> Body:
    """Return the claims in a row of the guide's table."""
    (row,) = [row for row in table(guide("attributes", language), "product|产品") if row[0].startswith(product)]
    found = re.search(r"`({.*?})`", row[1])
    assert found, row
    return json.loads(found[1])


# Hasura.


def hasura(token: str, role: str | None = None) -> Session:
    """Return the session variables of a request with this token, and with `x-hasura-role` if a role is given.

    Hasura requires a default role and a list of allowed roles, and the role must be in this list.
    """
    claims = get_unverified_claims(token)["https://hasura.io/jwt/claims"]
    allowed, default = claims["x-hasura-allowed-roles"], claims["x-hasura-default-role"]
    assert isinstance(allowed, list)
    assert (role or default) in allowed, "Your requested role is not in allowed roles"
    variables = {name: value for name, value in claims.items() if not name.endswith(("allowed-roles", "default-role"))}
    assert all(isinstance(value, str) for value in variables.values())
    return {**variables, "x-hasura-role": role or default}


@pytest.fixture
async def for_hasura(stage: Stage) -> LogIn:
    (english,) = [block for block in code_blocks(guide("attributes"), "sh") if "hasura" in block]
    (chinese,) = [block for block in code_blocks(guide("attributes", "zh"), "sh") if "hasura" in block]
    assert settings_of(english) == settings_of(chinese)
    return (await stage.replica(**settings_of(english))).login


async def test_hasura_lets_people_in_with_the_roles_that_they_have(for_hasura: LogIn, rows: Rows) -> None:
    alice = await for_hasura("alice")
    assert hasura(alice["access_token"]) == {"x-hasura-user-id": alice["user"]["id"], "x-hasura-role": "user"}
    for role in ("editor", "admin"):
        with pytest.raises(AssertionError, match="not in allowed roles"):
            hasura(alice["access_token"], role)
    await set_roles(rows, "user", "editor")
    assert hasura((await for_hasura("alice"))["access_token"], "editor")["x-hasura-role"] == "editor"


# PostgREST and Supabase's third-party auth.


@pytest.fixture
async def authenticated(rows: Rows) -> AsyncIterator[Rows]:
    """Give PostgREST's database a role and a table with the guide's policy. Afterwards, undo all changes."""
    transaction = rows.transaction()
    await transaction.start()
    await rows.execute("CREATE ROLE authenticated")
    await rows.execute("CREATE TABLE orders (user_id uuid, item text)")
    await rows.execute("GRANT SELECT ON orders TO authenticated")
    for language in ("", ".zh-CN"):
        (policy,) = code_blocks(guide("attributes", language), "sql")
        await rows.execute("DROP POLICY IF EXISTS own ON orders")
        await rows.execute(policy)
    yield rows
    await transaction.rollback()


async def claims_by_postgrest(login: LogIn, token: str, audience: str = "wxauth") -> Body:
    """Return the claims after PostgREST's checks of the key, the signature and, if `jwt-aud` is set, `aud`."""
    keys = (await login.client.get("/.well-known/jwks.json")).json()["keys"]
    kid = jwt.get_unverified_header(token)["kid"]
    (key,) = [jwt.PyJWK(key) for key in keys if key["kid"] == kid]
    options: Any = {"verify_exp": False, "verify_iat": False}  # the tokens have the test's time
    return jwt.decode(token, key, algorithms=["ES256", "RS256"], audience=audience, options=options)


async def read_orders(rows: Rows, claims: Body) -> list[str]:
    """Read the table as PostgREST does, which is in a transaction with the role and the claims of the token."""
    async with rows.transaction():
        await rows.execute(f'SET LOCAL ROLE "{claims["role"]}"')
        await rows.execute("SELECT set_config('request.jwt.claims', $1, true)", json.dumps(claims))
        found = [row["item"] for row in await rows.fetch("SELECT item FROM orders")]
        await rows.execute("RESET ROLE")
    return found


@pytest.mark.slow
@pytest.mark.own_database
@both_languages
@pytest.mark.parametrize("product", ["PostgREST", "Supabase"])
async def test_each_user_reads_their_own_rows(stage: Stage, language: str, product: str, authenticated: Rows) -> None:
    login = (await stage.replica(claims=recipe(language, product))).login
    for person in ("alice", "bob"):
        answer = await login(person)
        user_id = UUID(answer["user"]["id"])
        await authenticated.execute("INSERT INTO orders VALUES ($1, $2)", user_id, f"tea of {person}")
        claims = await claims_by_postgrest(login, answer["access_token"])
        assert await read_orders(authenticated, claims) == [f"tea of {person}"]
