"""The search `q` finds an exact id or number by an index. Any other text is searched for in the nicknames."""

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.world import Admin, LogIn, Stage
from wxauth.core.clock import LAST_ID
from wxauth.core.database import Database
from wxauth.core.users import UserStatus
from wxauth.users.schemas import users_answer
from wxauth.users.search_queries import _USERS_WITH_ID_OR_PHONE, WINDOWS, UsersQuery, _search_statement, find_users

pytestmark = pytest.mark.oldest_postgres

MANY = 40_000  # with half as many, PostgreSQL 15 prefers to read the whole table


@pytest.mark.parametrize("name", ["openid", "unionid", "phone", "id"])
async def test_an_exact_match_is_the_only_result_beside_nicknames(stage: Stage, root: Admin, name: str) -> None:
    alice = (await stage.login("alice", nickname="Alice"))["user"]
    await stage.rows.execute(
        "UPDATE users SET unionid = 'union-alice', phone = '+85291234567' WHERE id::text = $1", alice["id"]
    )
    text = {**alice, "unionid": "union-alice", "phone": "85291234567"}[name]
    await stage.login("bob", nickname=f"not {text}"[:64])
    assert await root.names(q=text) == ["Alice"]
    await stage.rows.execute("DELETE FROM users WHERE id::text = $1", alice["id"])
    has_form = name in ("phone", "id")  # the test's openid and unionid don't look like WeChat's
    assert await root.names(q=text) == ([] if has_form else [f"not {text}"])


async def test_a_foreign_number_with_separators_is_found_without_its_plus(stage: Stage, root: Admin) -> None:
    await stage.login("alice", nickname="Alice")
    await stage.rows.execute("UPDATE users SET phone = '+14155552671' WHERE nickname = 'Alice'")
    assert await root.names(q="1 415-555-2671") == ["Alice"]


@pytest.mark.parametrize(
    "text", ["13800138001", "+86 138 0013 8001", "oGZUI0egBJY1zhBYw2KhdUfwVJJE", "01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"]
)
async def test_what_only_a_whole_value_can_be_is_not_sought_in_nicknames(stage: Stage, root: Admin, text: str) -> None:
    await stage.login("bob", nickname=f"not {text}")
    assert await root.read("/users", q=text) == {"items": [], "next_cursor": None}


@pytest.mark.slow
@pytest.mark.own_database
async def test_two_chinese_characters_are_found_among_many_users_at_once(stage: Stage, database: Database) -> None:
    await some_users(stage.rows, sum(WINDOWS) + 1_000)
    await stage.rows.execute("UPDATE users SET nickname = '王小明' WHERE id = (SELECT min(id::text)::uuid FROM users)")
    for text, found in (("小明", ["王小明"]), ("王小", ["王小明"]), ("王小明", ["王小明"]), ("明小", []), ("王明", [])):
        page = await find_users(database, UsersQuery(q=text), region="CN", seconds=-1)
        assert ([user.nickname for user in page.items], page.is_incomplete) == (found, False)


async def test_an_id_that_was_merged_away_finds_the_user_that_remains(root: Admin, login: LogIn) -> None:
    alice = (await login("alice", nickname="Alice"))["user"]["id"]
    bob = (await login("bob", nickname="Bob"))["user"]["id"]
    assert (await root.merge(bob, into=alice)).status_code == 200
    assert await root.names(q=bob) == ["Alice"]


async def test_pages_list_all_users_of_a_number_once(stage: Stage, root: Admin) -> None:
    for number in range(5):
        await stage.login(f"person-{number}", nickname=f"P{number}")
    await stage.login("other", nickname="+8613800138000")
    await stage.rows.execute("UPDATE users SET phone = '+8613800138000' WHERE nickname LIKE 'P%'")
    seen, cursor = [], None
    for _ in range(3):
        page = await root.read("/users", q="+8613800138000", limit=2, **({"cursor": cursor} if cursor else {}))
        seen.append([user["nickname"] for user in page["items"]])
        cursor = page["next_cursor"]
    assert seen == [["P4", "P3"], ["P2", "P1"], ["P0"]]
    assert cursor is None


async def test_an_exact_search_stays_one_beside_other_filters_and_for_a_former_app(stage: Stage, root: Admin) -> None:
    openid = (await stage.login("alice", nickname="Alice"))["user"]["openid"]
    await stage.login("bob", nickname=openid)
    assert await root.names(q=openid, status="disabled") == []
    assert await root.names(q=openid, role="admin") == []
    await stage.rows.execute("UPDATE identities SET app_id = 'wxformer' WHERE openid = $1", openid)
    assert await root.names(q=openid) == ["Alice"]


@pytest.mark.slow
@pytest.mark.own_database  # elsewhere, a vacuum might record the table as empty, so it is read whole
async def test_an_exact_search_reads_no_other_user(rows: asyncpg.Connection) -> None:
    await rows.execute(f"""
        DISCARD PLANS; -- foreign keys keep plans for a table of a few users: half a minute of walks through this one
        INSERT INTO users (id, unionid, phone, created_at, last_login_at)
        SELECT gen_random_uuid(), 'union-' || n, '+861' || n, now(), now() FROM generate_series(1, {MANY}) n;
        ANALYZE users;
        DISCARD PLANS;
        INSERT INTO identities (app_id, openid, user_id, created_at)
        SELECT 'wx' || row_number() OVER () % 3, 'openid-' || unionid, id, now() FROM users;
        ANALYZE identities;
    """)
    for text in ("openid-union-7", "union-7", "+8617", "8617", "nothing"):
        plan = await rows.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {_USERS_WITH_ID_OR_PHONE.text}", text, [text], uuid4())
        lines = "\n".join(row[0] for row in plan)
        assert "Seq Scan" not in lines, lines


async def some_users(rows: asyncpg.Connection, number: int) -> None:
    """Add users. Only the oldest one has "Rare_%" in the nickname."""
    await rows.execute(
        """
        INSERT INTO users (id, nickname, created_at, last_login_at)
        SELECT lpad(n::text, 32, '0')::uuid, CASE n WHEN 1 THEN 'A Rare_% one' ELSE 'Rarely' END, now(), now()
          FROM generate_series(1, $1) n
        """,
        number,
    )


@pytest.mark.own_database
async def test_a_search_stops_at_its_time_limit_and_its_cursor_continues_it(stage: Stage, database: Database) -> None:
    await some_users(stage.rows, 2_500)
    search = UsersQuery(q="rare_", status=UserStatus.ACTIVE)
    first = await find_users(database, search, region="CN", seconds=-1)
    assert users_answer(first) == {"items": [], "next_cursor": first.next_cursor, "incomplete_results": True}
    assert first.next_cursor is not None
    search = UsersQuery(q="rare_", status=UserStatus.ACTIVE, cursor=first.next_cursor)
    then = await find_users(database, search, region="CN")
    assert [user.nickname for user in then.items] == ["A Rare_% one"]
    assert users_answer(then).keys() == {"items", "next_cursor"}
    assert then.next_cursor is None


@pytest.mark.slow
@pytest.mark.own_database
async def test_a_rare_nickname_is_looked_up_in_an_index(database: Database, rows: asyncpg.Connection) -> None:
    await some_users(rows, sum(WINDOWS) + 1_000)
    for text in ("rare_%", "RARE_", "_%"):
        page = await find_users(database, UsersQuery(q=text), region="CN", seconds=-1)
        assert [user.nickname for user in page.items] == ["A Rare_% one"]
        assert not page.is_incomplete
    for unbounded in (UsersQuery(q="%"), UsersQuery(q="rare_%", status=UserStatus.ACTIVE)):
        assert (await find_users(database, unbounded, region="CN", seconds=-1)).is_incomplete


@pytest.mark.own_database
async def test_a_search_for_a_rare_nickname_reads_only_the_users_who_have_it(stage: Stage) -> None:
    await some_users(stage.rows, 2_500)
    # These settings make PostgreSQL join the tables in the way that it chooses itself for ten million users.
    await stage.rows.execute(
        "ANALYZE users; SET enable_seqscan = off; SET enable_nestloop = off; SET enable_hashjoin = off"
    )
    statement = _search_statement(frozenset({"rare_part"}), only_admins=False)
    values = statement.arguments({"rare_part": "rare_", "before": LAST_ID, "lowest": UUID(int=0), "limit": 50})
    plan = json.loads(await stage.rows.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text}", *values))
    assert read_from("users", plan[0]["Plan"]) == [1, 1]


def read_from(table: str, node: dict[str, Any]) -> list[int]:
    """Return how many rows each part of a plan reads from a table."""
    below = [read for child in node.get("Plans", ()) for read in read_from(table, child)]
    if node.get("Relation Name") != table:
        return below
    return [int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"], *below]


async def test_of_a_common_nickname_a_page_is_full_at_once(database: Database, rows: asyncpg.Connection) -> None:
    await some_users(rows, 60)
    page = await find_users(database, UsersQuery(q="rare"), region="CN")
    assert len(page.items) == 50
    assert page.next_cursor is not None
    rest = await find_users(database, UsersQuery(q="rare", cursor=page.next_cursor), region="CN")
    assert len(rest.items) == 10
    assert rest.next_cursor is None
