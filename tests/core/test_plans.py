"""Compares the plans of all statements that read growing tables with files.

`scripts/test tests/core/test_plans.py --write-plans` writes these files. They contain generic plans of the embedded
PostgreSQL, for three kinds of statistics: empty tables, tables that were analyzed while they were empty and then
filled, and tables with a million rows in which nothing is pending.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.core.statements import STATEMENTS, generic_plans
from tests.world import Rows
from wxauth.housekeeping.queries import _READ_BY_INDEX

pytestmark = [pytest.mark.own_database, pytest.mark.slow]

FOLDER = Path(__file__).parents[1] / "plans"
PLANNED_BY = 18
"""The major version of PostgreSQL that made the plans in the files."""
ROWS, FEW = 2000, 5
OF_FEW_ROWS = {"apps", "clients", "feed_swept", "js_tickets", "signing_keys", "sweeps", "webhooks"}
USUALLY_EMPTY = {"alembic_version", "erasures", "events_unplaced", "feed_swept"}
PLANTED: Mapping[str, Mapping[str, str]] = {
    "deliveries": {"state": "'delivered'", "receiver_id": "lpad((n % 2)::text, 32, '0')::uuid", "attempts": "1"},
    "events": {"type": "(ARRAY['user.created', 'session.ended'])[1 + n % 2]", "user_id": "{uuid}"},
    "feed": {"type": "(ARRAY['user.created', 'session.ended'])[1 + n % 2]"},
    "sessions": {"app_id": "'wx'", "client_id": "CASE WHEN n % 10 = 0 THEN 'shop' END"},
    "identities": {"app_id": "'wx'"},
    "users": {"status": "'active'"},
    "website_sessions": {"client_id": "'shop'"},
}
"""The values of columns that need more than a different value in each row, or NULL."""
OF_TYPE = {
    "uuid": "lpad(n::text, 32, '0')::uuid",
    "text": "'x' || n",
    "character varying": "'x' || n",
    "timestamp with time zone": "'2026-01-01'::timestamptz + n * interval '1 second'",
    "date": "'2026-01-01'::date",
    "boolean": "false",
    "jsonb": "'{}'",
    "bytea": "sha256(n::text::bytea)",
    "inet": "'10.0.0.0'::inet + n",
    "ARRAY": "'{}'",
}
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable = 'YES' AS may_be_null FROM information_schema.columns
 WHERE table_schema = 'public' ORDER BY table_name, ordinal_position
"""
NO_CHECKS = """
SELECT string_agg(format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname), ';') FROM pg_constraint
 WHERE contype = 'c' AND connamespace = 'public'::regnamespace
"""


async def plant(rows: Rows) -> set[str]:
    """Fill the tables with the same rows each time, and return the names of the tables that grow."""
    columns: dict[str, dict[str, str]] = {}
    for table, column, kind, may_be_null in await rows.fetch(COLUMNS):
        given = PLANTED.get(table, {}).get(column)
        if table not in USUALLY_EMPTY and (given or not may_be_null):
            value = given or OF_TYPE.get(kind, "n")
            columns.setdefault(table, {})[column] = value.replace("{uuid}", OF_TYPE["uuid"])
    await rows.execute(await rows.fetchval(NO_CHECKS))
    await rows.execute("SET session_replication_role = replica")  # this setting switches triggers and foreign keys off
    for table, values in columns.items():
        await rows.execute(
            f"INSERT INTO {table} ({', '.join(values)}) OVERRIDING SYSTEM VALUE SELECT {', '.join(values.values())}"
            f" FROM generate_series(1, {FEW if table in OF_FEW_ROWS else ROWS}) n ON CONFLICT DO NOTHING"
        )
    return {*columns, *USUALLY_EMPTY} - OF_FEW_ROWS


def parts_of(plan: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[int, Mapping[str, Any]]]:
    yield depth, plan
    for part in plan.get("Plans", ()):
        yield from parts_of(part, depth + 1)


def line_of(part: Mapping[str, Any]) -> str:
    """Return what a part of a plan does, and the index that it uses."""
    beside = {"InitPlan": "once: ", "SubPlan": "for each row: "}.get(part.get("Parent Relationship", ""), "")
    join = part.get("Join Type", "Inner")
    what = [part.get("Operation") or part["Node Type"], join if join != "Inner" else "", part.get("Relation Name", "")]
    by = [f"by {part['Index Name']}" if "Index Name" in part else "", part.get("CTE Name", "")]
    return beside + " ".join(filter(None, (*what, *by, *(part.get(f"{kind} Cond", "") for kind in CONDITIONS))))


CONDITIONS = ("Index", "TID", "Hash", "Merge")


def text_of(kinds: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Return the plans of a statement, each below the kinds of statistics that lead to it."""
    made: dict[str, list[str]] = {}
    for kind, found in kinds.items():
        lines = "".join(f"    {'  ' * depth}{line_of(part)}\n" for depth, part in parts_of(found[name]))
        made.setdefault(lines, []).append(kind)
    return f"{name}\n" + "".join(f"  {', '.join(of)}:\n{lines}" for lines, of in made.items())


async def test_after_statistics_of_one_user_the_newest_session_is_found_by_its_user(rows: Rows) -> None:
    await plant(rows)
    await rows.execute("UPDATE sessions SET user_id = lpad('1', 32, '0')::uuid, openid = 'x1'")
    await rows.execute("VACUUM ANALYZE")
    plans = await generic_plans(rows)
    for name in ("siblings.queries._SIGNER_FOR_OPENID", "siblings.queries._SIGNER_FOR_USER"):
        (found,) = [line_of(part) for _, part in parts_of(plans[name]) if part.get("Relation Name") == "sessions"]
        assert "by sessions_user_id_id_idx" in found


async def test_the_limits_on_sessions_read_no_whole_table(rows: Rows) -> None:
    for prepare in (partial(plant, rows), partial(rows.execute, "VACUUM ANALYZE")):
        await prepare()
        async with rows.transaction():
            await rows.execute(_READ_BY_INDEX.text)
            plans = await generic_plans(rows)
        for name in ("CROWDED_USERS", "_OLDER_SESSIONS", "DELETE_ENDED_SESSIONS"):
            read = [line_of(part) for _, part in parts_of(plans[f"sessions.queries.{name}"])]
            assert [line for line in read if "Seq Scan sessions" in line] == []


async def test_each_plan_is_that_of_the_files(rows: Rows, request: pytest.FixtureRequest) -> None:
    if rows.get_server_version().major != PLANNED_BY:
        pytest.skip(f"the files have the plans of PostgreSQL {PLANNED_BY}")
    await rows.execute("VACUUM ANALYZE")
    kinds = {"empty": await generic_plans(rows)}
    growing = await plant(rows)
    kinds["filled"] = await generic_plans(rows)
    await rows.execute("ANALYZE")
    await rows.execute(
        "UPDATE pg_class SET reltuples = 1e6 WHERE relnamespace = 'public'::regnamespace AND reltuples = $1", ROWS
    )
    kinds["a million"] = await generic_plans(rows)
    texts: dict[str, str] = {}
    for name in STATEMENTS:
        if any(part.get("Relation Name") in growing for _, part in parts_of(kinds["a million"][name])):
            texts[name.partition(".")[0]] = texts.get(name.partition(".")[0], "") + text_of(kinds, name)
    if request.config.getoption("write_plans"):
        FOLDER.mkdir(exist_ok=True)
        for path in FOLDER.glob("*.txt"):
            path.unlink()
        for package, text in texts.items():
            (FOLDER / f"{package}.txt").write_text(text)
    assert texts == {path.stem: path.read_text() for path in FOLDER.glob("*.txt")}
    assert len(texts) > 15
