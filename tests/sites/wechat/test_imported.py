"""Imported users whom only a unionid identifies stay the same users, however they log in for the first time."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from tests.import_export.mover import Mover
from tests.sites.browsers import sent
from tests.sites.street import COMPUTER, MINI, PAGE, Street
from tests.world import Admin, set_roles
from wxauth_desk.wechat import MOBILE_APP
from wxauth_desk.wechat.people import openid_of, unionid_of

MOBILE = MOBILE_APP["app_id"]
UNIONID = unionid_of("dora")
Way = Callable[[Street], Awaitable[str]]


async def in_the_mini_program(street: Street) -> str:
    phone = await street.get_phone("dora")
    assert phone.tokens["is_new_user"] is False
    return phone.user_id


async def in_the_mobile_app(street: Street) -> str:
    phone = await street.get_phone("dora", app_id=MOBILE)
    assert phone.tokens["is_new_user"] is False
    return phone.user_id


async def by_the_account(street: Street) -> str:
    tokens = await street.tokens_for(await street.visitor("account", "dora").log_in())
    return str((await street.claims(tokens))["sub"])


async def by_the_website_app(street: Street) -> str:
    tokens = await street.tokens_for(await street.visitor("website", "dora").log_in())
    return str((await street.claims(tokens))["sub"])


WAYS = pytest.mark.parametrize(
    ("way", "app_id"),
    [
        (in_the_mini_program, MINI),
        (in_the_mobile_app, MOBILE),
        (by_the_account, PAGE),
        (by_the_website_app, COMPUTER),
    ],
)


async def imported(street: Street, **line: str) -> UUID:
    """Import this line, and return the id of its user."""
    assert (await Mover(street.stage).import_lines({**line, "external_id": "7"}))[0] == 1
    user_id: UUID = await street.stage.rows.fetchval("SELECT id FROM users WHERE external_id = '7'")
    return user_id


async def identities(street: Street, user_id: UUID) -> list[tuple[str, str, str | None]]:
    found = "SELECT app_id, openid, unionid FROM identities WHERE user_id = $1 ORDER BY app_id"
    return [tuple(row) for row in await street.stage.rows.fetch(found, user_id)]


@WAYS
@pytest.mark.usefixtures("bystander")
async def test_a_login_corrects_the_unionid_in_place_of_the_openid(street: Street, way: Way, app_id: str) -> None:
    user_id = await imported(street, app_id=app_id, openid=UNIONID)
    people = await street.people()
    for _ in range(2):
        assert await way(street) == str(user_id)
        assert await identities(street, user_id) == [(app_id, openid_of("dora", app_id), UNIONID)]
    assert await street.people() == people
    [line] = street.stage.logged("imported_unionid_as_openid")
    assert (line["app_id"], line["user_id"]) == (app_id, str(user_id))


@WAYS
@pytest.mark.usefixtures("bystander")
async def test_a_login_claims_the_user_with_a_unionid_alone(street: Street, way: Way, app_id: str) -> None:
    user_id = await imported(street, unionid=UNIONID)
    assert await identities(street, user_id) == []
    for _ in range(2):
        assert await way(street) == str(user_id)
        assert await identities(street, user_id) == [(app_id, openid_of("dora", app_id), UNIONID)]


@WAYS
@pytest.mark.parametrize("known", ["unionid", "openid"])
@pytest.mark.usefixtures("bystander")
async def test_two_users_of_one_person_are_merged(street: Street, way: Way, app_id: str, known: str) -> None:
    rows, line = street.stage.rows, {"app_id": app_id, "openid": openid_of("dora", app_id)}
    if known == "unionid":
        line = {"unionid": UNIONID}
    assert (await Mover(street.stage).import_lines({**line, "nickname": "Dora"}))[0] == 1
    user_id = await imported(street, app_id=app_id, openid=UNIONID)
    remaining = UUID(await way(street))
    user = await rows.fetchrow("SELECT nickname, external_id, unionid FROM users WHERE id = $1", remaining)
    assert tuple(user) == ("Dora", "7", UNIONID)
    assert await identities(street, remaining) == [(app_id, openid_of("dora", app_id), UNIONID)]
    assert await street.stage.number("users WHERE id = $1 OR nickname = 'Dora'", user_id) == 1


@pytest.mark.parametrize(
    "line", [{"app_id": COMPUTER, "openid": UNIONID}, {"unionid": UNIONID}], ids=["openid", "alone"]
)
@pytest.mark.usefixtures("bystander")
async def test_the_website_app_stays_closed_to_imported_staff(street: Street, line: dict[str, str]) -> None:
    user_id = await imported(street, **line)
    await street.stage.rows.execute("UPDATE users SET roles = '{admin}' WHERE id = $1", user_id)
    before = await street.people(), await identities(street, user_id)
    assert sent(await street.visitor("website", "dora").log_in())["error"] == "access_denied"
    assert (await street.people(), await identities(street, user_id)) == before


async def test_the_website_app_is_open_to_who_merely_resembles_staff(street: Street, root: Admin) -> None:
    anywhere = await street.stage.make_services(scan_admin_anywhere=True)
    await street.visitor("website", "root", at=anywhere).log_in()
    alike = [
        {"app_id": MINI, "openid": openid_of("dora", COMPUTER)},
        {"app_id": MINI, "openid": UNIONID},
        {"app_id": COMPUTER, "openid": "in-the-same-app"},
    ]
    assert (await Mover(street.stage).import_lines(*alike))[0] == len(alike)
    await set_roles(street.stage.rows, "admin")
    assert "code" in sent(await street.visitor("website", "dora").log_in())
