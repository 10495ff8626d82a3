"""Every statement of PostgreSQL's own text, against the migrated schema; and what is read of a user."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import asyncpg
import pytest

import wxauth
from wxauth.server.core.tables import USER, User, UserRow
from wxauth.server.users.bodies import ProfileAndStanding

BESIDE_ROWS = (
    "wxauth.server.core.database",
    "wxauth.server.core.trail",
    "wxauth.server.core.migrations",
    "wxauth.server.core.schema",
)


def statements() -> Iterator[pytest.param]:
    for module in pkgutil.walk_packages(wxauth.__path__, "wxauth."):
        room, _, name = module.name.rpartition(".")
        if name == "rows" or name.endswith("_rows") or module.name in BESIDE_ROWS:
            for constant, value in vars(import_module(module.name)).items():
                is_whole = constant.isupper() and not constant.endswith("_PART")
                if is_whole and isinstance(value, str) and is_statement(value):
                    yield pytest.param(value, id=f"{room.rpartition('.')[2]}.{name}.{constant}")


def is_statement(text: str) -> bool:
    return text.split(maxsplit=1)[:1] != [] and text.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


STATEMENTS = list(statements())


def test_all_rooms_with_statements_are_looked_at() -> None:
    assert {str(statement.id).partition(".")[0] for statement in STATEMENTS} == {
        "apps",
        "checks",
        "clients",
        "consents",
        "console",
        "core",
        "events",
        "housekeeping",
        "keys",
        "limits",
        "login",
        "moving",
        "numbers",
        "own_data",
        "phones",
        "pictures",
        "profile",
        "push",
        "risk",
        "service",
        "session_keys",
        "sessions",
        "siblings",
        "users",
        "websites",
    }


async def test_postgres_can_prepare_each_statement(rows: asyncpg.Connection) -> None:
    failures = []
    for statement in STATEMENTS:
        try:
            await rows.prepare(statement.values[0])
        except asyncpg.PostgresError as exc:
            failures.append(f"{statement.id}: {exc}")
    assert failures == []


def test_a_user_is_read_with_every_column_of_the_table_but_what_only_a_login_needs() -> None:
    columns = [column.name for column in User.__table__.columns]  # type: ignore[attr-defined]  # SQLModel adds the table
    columns.remove("unjudged_since")
    assert list(UserRow.__annotations__) == columns
    assert ", ".join(f"users.{name}" for name in columns) == USER


def test_an_answer_tells_every_column_of_a_user() -> None:
    # What was agreed to is told by what is due, and to administrators as the list of consents.
    # Of the time at which a number was proved, it is told whether there is one.
    told = {"id", "consents", *ProfileAndStanding.__annotations__} - {"phone_verified"} | {"phone_proved_at"}
    assert told == set(UserRow.__annotations__)
