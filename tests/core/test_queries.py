"""Each statement and its row type fit the migrated schema.

The tests also check which columns of a user are shown or merged.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

import asyncpg
import pytest
from pydantic import BaseModel
from typing_extensions import get_type_hints, is_typeddict

import wxauth
from tests.core.statements import STATEMENTS, generic_plans
from tests.world import Rows
from wxauth.core.users import USER, UserFields
from wxauth.users.models import User
from wxauth.users.schemas import FieldsForUserAndStaff

pytestmark = pytest.mark.oldest_postgres

PYTHON = {
    "bool": bool,
    "bytea": bytes,
    "date": date,
    "inet": object,
    "int2": int,
    "int4": int,
    "int8": int,
    "float8": float,
    "text": str,
    "timestamptz": datetime,
    "uuid": UUID,
    "varchar": str,
    "void": object,
}


def test_all_packages_with_statements_are_checked() -> None:
    packages = {path.parent.name for path in Path(wxauth.__path__[0]).glob("*/*queries.py")}
    assert {name.partition(".")[0] for name in STATEMENTS} == {*packages, "core"}
    assert len(packages) > 15


async def test_postgres_can_prepare_each_statement_and_answers_what_its_row_says(rows: Rows) -> None:
    failures = []
    for name, statement in STATEMENTS.items():
        try:
            answered = (await rows.prepare(statement.text)).get_attributes()
        except asyncpg.PostgresError as exc:
            failures.append(f"{name}: {exc}")
            continue
        (row,) = get_args(statement.__orig_class__)  # type: ignore[attr-defined]  # what it was made with
        failures += [f"{name}: {each}" for each in what_differs(answered, row)]
    assert not failures, "change the statement or the type of its rows:\n" + "\n".join(failures)


@pytest.mark.own_database
async def test_no_plan_locks_the_rows_of_a_page_more_than_once(rows: Rows) -> None:
    # A sub-select with SKIP LOCKED must not be repeated for each row of the other side of a join. Each repetition would
    # lock further rows, so the statement would delete more rows than its LIMIT allows. PostgreSQL makes such a plan
    # while it assumes that a table is empty.
    await rows.execute("VACUUM ANALYZE")
    repeated = [
        name
        for name, plan in (await generic_plans(rows)).items()
        if "SKIP LOCKED" in STATEMENTS[name].text
        for part in repeated_parts(plan)
        if part["Node Type"] == "LockRows"
    ]
    assert repeated == []


def repeated_parts(plan: Mapping[str, Any], *, is_repeated: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a plan that are executed for each row of another part. An InitPlan is executed only once."""
    if is_repeated:
        yield plan
    for part in plan.get("Plans", ()):
        if (relationship := part["Parent Relationship"]) != "InitPlan":
            is_inner = plan["Node Type"] == "Nested Loop" and relationship == "Inner"
            yield from repeated_parts(part, is_repeated=is_repeated or is_inner)


def what_differs(answered: Sequence[asyncpg.Attribute], row: Any) -> Iterator[str]:
    """Describe how the columns of a result differ from the type of its row."""
    if get_origin(row) is Mapping:
        return
    if get_origin(row) is tuple:
        if len(answered) != len(get_args(row)) or not all(map(fits, answered, get_args(row))):
            yield f"is ({', '.join(column.type.name for column in answered)}), not {row}"
        return
    expected = columns_of(row)
    if expected is None:
        if len(answered) != 1:
            yield f"has {len(answered)} columns, and its row is one {row}"
        elif not fits(answered[0], row):
            yield f"is {answered[0].type.name}, not {row}"
        return
    columns = {column.name: column for column in answered}
    if columns.keys() != expected.keys():
        yield f"differs from {row} in {sorted(columns.keys() ^ expected.keys())}"
    for name in columns.keys() & expected.keys():
        if not fits(columns[name], expected[name]):
            yield f"{name} is {columns[name].type.name}, not {expected[name]}"


def columns_of(row: Any) -> Mapping[str, Any] | None:
    """Return the columns that a row type names, with their types. Return None for the type of a single column."""
    if is_typeddict(row):
        return get_type_hints(row)
    if isinstance(row, type) and issubclass(row, BaseModel):
        return {name: field.annotation for name, field in row.model_fields.items()}
    if isinstance(row, type) and is_dataclass(row):
        hints = get_type_hints(row)
        return {field.name: hints[field.name] for field in fields(row)}
    return None


def fits(column: asyncpg.Attribute, expected: Any) -> bool:
    """Return whether a column's values have this type. PostgreSQL doesn't report whether a column may be NULL."""
    kinds = {str if get_origin(one) is Literal else one for one in one_of(expected)} - {NoneType}
    if column.type.name == "jsonb":
        return all(is_typeddict(kind) or get_origin(kind) in (dict, list) for kind in kinds)
    of_one = PYTHON[column.type.name.removesuffix("[]")]
    return kinds == {list[of_one] if column.type.name.endswith("[]") else of_one}  # type: ignore[valid-type]  # so it is


def one_of(expected: Any) -> Sequence[Any]:
    return get_args(expected) if get_origin(expected) in (Union, UnionType) else (expected,)


def test_a_user_is_read_with_every_column_of_the_table_but_what_logins_and_staff_alone_need() -> None:
    columns = [column.name for column in User.__table__.columns]  # type: ignore[attr-defined]  # SQLModel adds the table
    of_logins_and_staff = ("ban_reason", "banned_until", "identity_lost_at")
    columns = [name for name in columns if name not in of_logins_and_staff]
    assert list(UserFields.model_fields) == columns, (
        "declare a new column as the last of UserFields in src/wxauth/core/users.py; or, if only logins and staff "
        "need it, in src/wxauth/users/models.py, and name it above"
    )
    assert ", ".join(f"users.{name}" for name in columns) == USER


# The columns of users that `_MERGE` doesn't change, each with the reason why nothing is lost.
LEFT_ALONE = {
    "id": "the other user's is in `former_users`",
    "attributes": "`add_missing_attributes`",
    "erase_at": "nobody who is leaving is merged",
    "identity_lost_at": "a trigger of `identities` sets it",
    **dict.fromkeys(("roles", "status", "ban_reason", "banned_until"), "`change_status_and_roles`"),
}


def test_a_merge_forgets_no_column_of_a_user() -> None:
    merge = STATEMENTS["merging.merging_queries._MERGE"].text
    filled = set(re.findall(r"(?<![.\w])(\w+) = ", merge.rpartition("UPDATE users")[2]))
    wrong = (set(User.model_fields) - filled) ^ set(LEFT_ALONE)
    assert not wrong, f"add {wrong} to MERGEABLE_FIELDS in core/users.py, or say in LEFT_ALONE why a merge keeps it"


def test_a_result_has_every_column_of_a_user() -> None:
    # Consents are shown as the consents that are still due, and to administrators as a list. Only staff and services
    # see attributes and the time at which a leaving user is erased. Instead of the time at which a number was verified,
    # the result shows only whether it was. Staff and services see the last refresh as a part of `last_seen_at`.
    elsewhere = {"id", "consents", "attributes", "erase_at", "phone_verified_at", "last_refresh_at"}
    returned = elsewhere | set(FieldsForUserAndStaff.__annotations__) - {"phone_verified"}
    wrong = returned ^ set(UserFields.model_fields)
    assert not wrong, (
        f"add {wrong} to FieldsForUserAndStaff in src/wxauth/users/schemas.py, or to FieldsForAll if other services "
        "may read it; if a result does not have it, say above where it is shown"
    )
