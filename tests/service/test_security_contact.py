"""Who finds a fault learns where to report it (RFC 9116)."""

from datetime import datetime, timedelta

import pytest

from tests.problems import problem_of
from tests.world import Stage

CONTACT = "mailto:security@example.com"


@pytest.mark.parametrize("path", ["", "/auth"])
async def test_the_contact_is_served_and_expires_within_a_year_of_the_start(stage: Stage, path: str) -> None:
    client = await stage.make(security_contact=CONTACT, issuer=f"https://auth.test{path}")
    answer = await client.get(f"{path}/.well-known/security.txt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    contact = dict(line.split(": ", 1) for line in answer.text.splitlines())
    assert contact["Contact"] == CONTACT
    assert timedelta(days=300) < datetime.fromisoformat(contact["Expires"]) - stage.clock() < timedelta(days=365)


async def test_without_a_contact_there_is_no_page(stage: Stage) -> None:
    problem_of(await (await stage.make()).get("/.well-known/security.txt"), "not_found", 404)
