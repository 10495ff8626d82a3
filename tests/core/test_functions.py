"""The functions in the database find wxauth's tables whatever the search_path of the writer is."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import asyncpg
import pytest

from tests.databases import scripts_of_next_version
from tests.programs import postgres_program
from tests.world import Rows
from wxauth.core.database import Database
from wxauth.core.migrations import migrate

pytestmark = [pytest.mark.own_database, pytest.mark.slow]

PATHS = """
    SELECT proname, (SELECT setting FROM unnest(proconfig) setting WHERE starts_with(setting, 'search_path=')) AS path
      FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""
NAMES_NO_TABLE = {"check_session", "check_user", "events_are_append_only", "nickname_bigrams"}
"""Logins call the first two, which must stay cheap. A function that names a table must not be added here."""
WRITES = """
    INSERT INTO public.users (id, created_at, unionid, phone, avatar_url)
         VALUES (gen_random_uuid(), now(), 'one', '+8613800138000', '/v1/avatars/a.png');
    INSERT INTO public.identities (app_id, openid, user_id, created_at) SELECT 'wx1', 'o1', id, now() FROM public.users;
    INSERT INTO public.sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at, client_id)
         SELECT gen_random_uuid(), id, 'wx1', 'o1', now(), now(), now() + interval '1 day', 'shop' FROM public.users;
    INSERT INTO public.events (id, type, at, actor, user_id, data)
         SELECT gen_random_uuid(), 'user.created', now(), id::text, id, '{}' FROM public.users;
    UPDATE public.users SET unionid = 'two', phone = NULL, avatar_url = NULL, nickname = '小爱';
    UPDATE public.sessions SET revoked_at = now(), revoked_reason = 'banned';
    UPDATE public.identities SET openid = 'o2';
    SELECT set_config('wxauth.sweeping', 'on', false);
    DELETE FROM public.events;
    DELETE FROM public.identities;
    DELETE FROM public.users;
"""


def run_program(name: str, *arguments: str) -> None:
    subprocess.run([postgres_program(name), *arguments], check=True, capture_output=True)


async def paths(rows: Rows) -> dict[str, str | None]:
    return dict(await rows.fetch(PATHS))


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Rows]:
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


@pytest.mark.oldest_postgres
async def test_each_function_that_names_a_table_has_its_own_path(rows: Rows) -> None:
    found = await paths(rows)
    assert {name for name, path in found.items() if path is None} == NAMES_NO_TABLE
    assert set(found.values()) == {None, "search_path=public, pg_temp"}


@pytest.mark.oldest_postgres
async def test_a_writer_without_the_schema_in_its_path_reaches_every_trigger(rows: Rows) -> None:
    await rows.execute("SET search_path = ''")
    await rows.execute(WRITES)
    assert [await rows.fetchval(f"SELECT count(*) FROM public.{it}") for it in ("users", "unionids", "sessions")] == [
        0
    ] * 3


@pytest.mark.process
async def test_a_dump_keeps_the_paths(
    rows: Rows, database_url: str, empty: Rows, empty_database_url: str, tmp_path: Path
) -> None:
    run_program("pg_dump", "--format=custom", f"--file={tmp_path}/dump", database_url)
    run_program("pg_restore", "--exit-on-error", f"--dbname={empty_database_url}", f"{tmp_path}/dump")
    assert await paths(empty) == await paths(rows)


async def test_functions_of_a_later_version_get_a_path_and_those_of_others_do_not(
    empty: Rows, empty_database_url: str, tmp_path: Path
) -> None:
    scripts = scripts_of_next_version(tmp_path)
    script = next(scripts.glob("versions/9001_*.py"))
    create = "CREATE FUNCTION greet_users() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM users'"
    script.write_text(
        script.read_text().replace("def upgrade() -> None:\n", f"def upgrade() -> None:\n    op.execute({create!r})\n")
    )
    await empty.execute(
        "CREATE FUNCTION theirs() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN count(*) FROM users; END'"
    )
    async with aclosing(Database(empty_database_url)) as database:
        await migrate(database, scripts=scripts)
    found = await paths(empty)
    assert (found["greet_users"], found["theirs"]) == ("search_path=public, pg_temp", None)


async def test_a_migration_keeps_a_path_that_the_operator_has_set(rows: Rows, database_url: str) -> None:
    await rows.execute("ALTER FUNCTION remember_unionid() SET search_path = public, extensions")
    await rows.execute("ALTER FUNCTION mark_unplaced() RESET ALL")
    async with aclosing(Database(database_url)) as database:
        await migrate(database)
    found = await paths(rows)
    assert (found["remember_unionid"], found["mark_unplaced"]) == (
        "search_path=public, extensions",
        "search_path=public, pg_temp",
    )
