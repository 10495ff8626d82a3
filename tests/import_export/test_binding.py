"""The guide's recipe for a mini-program whose own login needs a user name and a password works as shown."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from tests.docs import block
from tests.guard.hostile import Forger
from wxauth_guard.testing import TestIssuer

pytestmark = pytest.mark.own_database
TABLES = """
CREATE SCHEMA shop;
CREATE TABLE users (id serial PRIMARY KEY, name text UNIQUE, password text);
CREATE TABLE orders (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users, title text NOT NULL);
INSERT INTO users (name, password) VALUES ('alice', 'of alice'), ('bob', 'of bob'), ('alice2', 'of alice');
INSERT INTO orders (user_id, title) VALUES (1, 'tea'), (2, 'milk');
ALTER TABLE users ADD wxauth_id uuid UNIQUE;
"""
BOUND, WRONG = (204, None), (403, "wrong_password")
HAS_ANOTHER_WECHAT, HAS_ANOTHER_ACCOUNT = (409, "account_has_another_wechat"), (409, "wechat_has_another_account")


@dataclass(frozen=True, slots=True)
class Shop:
    """The service of the guide, with the tables of an existing project."""

    client: httpx.AsyncClient
    issuer: TestIssuer
    pool: asyncpg.Pool

    async def bind(self, person: UUID, name: str, password: str | None = None) -> tuple[int, str | None]:
        given = {"name": name, "password": f"of {name.rstrip('2')}" if password is None else password}
        answer = await self.client.post("/bind", json=given, headers=self.issuer.headers(user_id=person))
        return answer.status_code, answer.json()["detail"] if answer.content else None

    async def orders(self, person: UUID) -> Any:
        return (await self.client.get("/orders", headers=self.issuer.headers(user_id=person))).json()

    async def rows(self) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.pool.fetch("SELECT id, wxauth_id FROM users ORDER BY id")]


@pytest.fixture
async def shop(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    url = f"{database_url}{'&' if '?' in database_url else '?'}search_path=shop"
    passwords = ModuleType("passwords")
    passwords.__dict__["is_right"] = str.__eq__
    monkeypatch.setitem(sys.modules, "passwords", passwords)
    for name, value in {"WXAUTH_ISSUER": "https://auth.test", "DATABASE_URL": url}.items():
        monkeypatch.setenv(name, value)
    shown = dict[str, Any]()
    exec(block("docs/start/moving-in.md", "bind.py"), shown)
    issuer, app = TestIssuer(), shown["app"]
    async with asyncpg.create_pool(url) as pool:
        await pool.execute(TABLES)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
        ):
            with issuer.trusted_by(shown["guard"]):
                yield Shop(client, issuer, pool)


async def test_whoever_binds_first_has_the_old_account_and_may_say_so_again(shop: Shop) -> None:
    alice, bob = uuid4(), uuid4()
    assert await shop.bind(alice, "alice") == BOUND
    assert await shop.bind(alice, "alice") == BOUND
    assert await shop.orders(alice) == ["tea"]
    assert await shop.bind(bob, "alice") == HAS_ANOTHER_WECHAT
    assert await shop.orders(alice) == ["tea"]


async def test_a_row_that_the_wechat_button_made_makes_way_unless_it_was_used(shop: Shop) -> None:
    alice, bob = uuid4(), uuid4()
    assert [await shop.orders(person) for person in (alice, bob)] == [[], []]
    assert await shop.bind(alice, "alice") == BOUND
    assert (await shop.orders(alice), len(await shop.rows())) == (["tea"], 4)
    await shop.pool.execute(
        "INSERT INTO orders (user_id, title) SELECT id, 'rice' FROM users WHERE wxauth_id = $1", bob
    )
    assert await shop.bind(bob, "bob") == HAS_ANOTHER_ACCOUNT
    assert await shop.orders(bob) == ["rice"]


async def test_one_wechat_has_one_account(shop: Shop) -> None:
    alice = uuid4()
    assert await shop.bind(alice, "alice") == BOUND
    assert await shop.bind(alice, "alice2") == HAS_ANOTHER_ACCOUNT
    assert await shop.rows() == [(1, alice), (2, None), (3, None)]


async def test_nobody_binds_without_the_password_or_with_a_token_of_others(shop: Shop) -> None:
    alice = uuid4()
    for name, password in (("alice", "of bob"), ("alice", ""), ("nobody", "of alice"), ("", "")):
        assert await shop.bind(alice, name, password) == WRONG
    given = {"name": "alice", "password": "of alice"}
    assert (await shop.client.post("/bind", json=given)).status_code == 401
    website = shop.issuer.headers(scope="openid", client_id="site")
    assert (await shop.client.post("/bind", json=given, headers=website)).status_code == 403
    forged = Forger(shop.issuer.token(), shop.issuer.key).without_header("typ")
    assert (
        await shop.client.post("/bind", json=given, headers={"Authorization": f"Bearer {forged}"})
    ).status_code == 401
    assert {wxauth_id for _, wxauth_id in await shop.rows()} == {None}


async def test_of_many_calls_at_once_one_account_and_one_wechat_come_together(shop: Shop) -> None:
    people = [uuid4() for _ in range(8)]
    answers = await asyncio.gather(*(shop.bind(person, "alice") for person in people))
    assert sorted(answers) == [BOUND, *[HAS_ANOTHER_WECHAT] * 7]
    bob = uuid4()
    answers = await asyncio.gather(
        *(shop.bind(bob, name, password) for name, password in [("bob", None), ("alice2", None)] * 4),
        *(shop.orders(bob) for _ in range(4)),
    )
    assert {*answers[:8]} == {BOUND, HAS_ANOTHER_ACCOUNT}
    assert sum(wxauth_id == bob for _, wxauth_id in await shop.rows()) == 1
