"""`wxauth check` reports what has changed in the database behind the schema's back."""

import re

import pytest

from tests.checks.conftest import BAD, NOTE, Doctor, assert_reported
from tests.world import Rows

pytestmark = pytest.mark.own_database


@pytest.mark.slow
async def test_an_order_of_text_that_has_changed_is_reported(doctor: Doctor, rows: Rows) -> None:
    assert "database collation" not in await doctor()
    await rows.execute("UPDATE pg_database SET datcollversion = '2.31' WHERE datname = current_database()")
    result = (await doctor())["database collation"]
    assert_reported({"": result}, "", NOTE, "2.31")
    _, first, then = re.split("first (?=REINDEX)|; then ", result.text)
    await rows.execute("CREATE TABLE of_mine (name text)")
    await doctor.says("database collation", BAD, "of_mine.name")
    await rows.execute(first)
    await rows.execute(then)
    assert "database collation" not in await doctor()


async def test_a_login_that_the_database_refuses_is_reported(doctor: Doctor, rows: Rows) -> None:
    await rows.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not here'; END$$;
        CREATE TRIGGER refuses BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    await doctor.says("login", BAD, "not here")
