"""Who finds a fault learns where to report it (RFC 9116)."""

from datetime import datetime, timedelta

import pytest

from tests.fakes import Clock
from tests.problems import problem_of
from tests.world import MakeClient, MakeServices

CONTACT = "mailto:security@example.com"


def fields(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


@pytest.mark.parametrize("path", ["", "/auth"])
async def test_the_contact_is_served_and_expires_within_a_year_of_the_start(
    make_services: MakeServices, make_client: MakeClient, clock: Clock, path: str
) -> None:
    services = await make_services(security_contact=CONTACT, issuer=f"https://auth.test{path}")
    answer = await make_client(services).get(f"{path}/.well-known/security.txt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    contact = fields(answer.text)
    assert contact["Contact"] == CONTACT
    assert timedelta(days=300) < datetime.fromisoformat(contact["Expires"]) - clock() < timedelta(days=365)


async def test_without_a_contact_there_is_no_page(make_services: MakeServices, make_client: MakeClient) -> None:
    answer = await make_client(await make_services()).get("/.well-known/security.txt")
    problem_of(answer, "not_found", 404)
