"""Fixtures for the other people who manage users, which are the support staff and operators at the command line."""

from pathlib import Path

import pytest

from tests.processes import Command, make_command
from tests.world import Admin, Stage, make_admin


@pytest.fixture
async def sue(stage: Stage) -> Admin:
    """A member of the support staff."""
    return await make_admin(stage.client, stage.rows, await stage.login("sue"), role="support")


@pytest.fixture
def users(database_url: str, tmp_path: Path) -> Command:
    """Return a function that runs `wxauth users ...` on this test's database, with no other setting."""
    return make_command("users", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
