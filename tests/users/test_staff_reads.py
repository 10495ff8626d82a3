"""The audit trail records whose data staff read, and the role `support` sees masked phone numbers.

wxauth stores these records in the background, so that responses do not wait for them.
"""

import asyncio
from typing import Any

import pytest

from tests.database_proxy import Proxy
from tests.fakes import OTHER_APP
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import NOBODY, NUMBER, Admin, Body, LogIn, Stage, recorded
from wxauth.errors import StorageUnavailable
from wxauth.users.phone_numbers import masked
from wxauth.users.search_queries import TermKind, term_kind_of
from wxauth.users.staff_read_queries import MAX_WAITING, StaffReads

MASKED = "+86138****8000"


pytestmark = pytest.mark.settings(staff_reads=True)


@pytest.fixture
async def alice(stage: Stage) -> str:
    """Return the id of a user with a nickname and a phone number."""
    user_id = (await stage.login("alice", nickname="小明"))["user"]["id"]
    await stage.rows.execute("UPDATE users SET phone = $1, phone_verified_at = now() WHERE id = $2", NUMBER, user_id)
    return user_id


async def reads(staff: Admin) -> list[tuple[Any, ...]]:
    items = (await staff.read("/events", type=["staff.searched", "staff.read"], limit=200))["items"]
    assert {event["actor"] for event in items} <= {staff.id}
    assert {event["ip"] for event in items} <= {"127.0.0.1"}
    return [(event["type"], event["user_id"], event["data"]) for event in items[::-1]]


@pytest.mark.oldest_postgres
async def test_what_staff_search_and_read_is_in_the_trail(root: Admin, alice: str) -> None:
    found = [(await root.read("/users", q=q))["items"] for q in (NUMBER, alice.upper(), "小", "o" * 28, "")]
    assert [user["phone"] for user in found[0]] == [NUMBER], "whole, for an administrator"
    await root.read(f"/users/{alice}")
    await root.read(f"/users/{alice}/phone")
    await root.read(f"/users/{alice}/export")
    assert await reads(root) == [
        ("staff.searched", None, {"term": "phone", "found": 1}),
        ("staff.searched", None, {"term": "user_id", "found": 1}),
        ("staff.searched", None, {"term": "text", "found": 1}),
        ("staff.searched", None, {"term": "wechat_id", "found": 0}),
        ("staff.searched", None, {"term": "none", "found": 2}),
        ("staff.read", alice, {"what": "user"}),
        ("staff.read", alice, {"what": "phone"}),
        ("staff.read", alice, {"what": "export"}),
    ]


async def test_an_export_by_a_former_id_is_recorded_under_the_present_id(root: Admin, login: LogIn, alice: str) -> None:
    former = (await login("bob", app=OTHER_APP))["user"]["id"]
    assert (await root.merge(former, into=alice)).status_code == 200
    assert (await root.read(f"/users/{former}/export"))["user"]["id"] == alice
    assert [user_id for kind, user_id, data in await reads(root) if data == {"what": "export"}] == [alice]


async def test_what_was_not_found_was_not_read(root: Admin) -> None:
    for path in (f"/users/{NOBODY}", f"/users/{NOBODY}/phone", f"/users/{NOBODY}/export"):
        problem_of(await root.ask("GET", path), "not_found", 404)
    assert await reads(root) == []


async def test_reading_can_be_left_out_of_the_trail(stage: Stage, root: Admin, alice: str) -> None:
    quiet = Admin(await stage.make(staff_reads=False), root.answer)
    await quiet.read("/users", q=NUMBER)
    await quiet.read(f"/users/{alice}")
    assert await reads(quiet) == []


async def test_an_answer_does_not_wait_for_the_trail(stage: Stage, root: Admin, alice: str) -> None:
    async with stage.rows.transaction():
        await stage.rows.execute("LOCK TABLE events IN EXCLUSIVE MODE")
        assert (await asyncio.wait_for(root.ask("GET", f"/users/{alice}"), 5)).status_code == 200
    assert await stage.number("events WHERE type = 'staff.read'") == 0
    await stage.services[StaffReads].store()
    assert await stage.number("events WHERE type = 'staff.read'") == 1
    await stage.services[StaffReads].store()
    assert await stage.number("events WHERE type = 'staff.read'") == 1


async def test_a_list_of_one_user_is_a_read_of_that_user(stage: Stage, root: Admin, alice: str) -> None:
    await stage.rows.execute(
        "INSERT INTO refusals (id, at, code, user_id, request_id) VALUES (gen_random_uuid(), now(), 'x', $1, 'y')",
        alice,
    )
    for _ in range(2):  # somebody who follows a list reads it again within a minute
        for name in ("logins", "events", "refusals"):
            await root.read(f"/{name}", user_id=alice)
    await root.read("/events", actor=alice)
    await root.read("/names", user_id=alice)
    everybody = [alice, root.id]
    await root.read("/names", user_id=everybody)
    for path in ("logins", "events", "refusals"):
        await root.read(f"/{path}")
        await root.read(f"/{path}", user_id=NOBODY)
    *stored, (kind, nobody, many) = await reads(root)
    assert stored == [
        ("staff.read", alice, {"what": "logins"}),
        ("staff.read", alice, {"what": "events"}),
        ("staff.read", alice, {"what": "refusals"}),
        ("staff.read", alice, {"what": "names"}),
    ]
    assert (kind, nobody, many["what"], sorted(many["user_ids"])) == ("staff.read", None, "names", sorted(everybody))
    stage.clock.advance(minutes=1)
    await root.read("/logins", user_id=alice)
    assert (await reads(root))[-1] == ("staff.read", alice, {"what": "logins"})


@pytest.mark.slow
async def test_a_change_of_nothing_is_a_read(root: Admin, alice: str) -> None:
    nothing: list[Body] = [{"status": "active"}, {"attributes": {}}, {"erase_at": None}, {"avatar_url": None}]
    for change in nothing:
        assert (await root.change(alice, **change))["phone"] == NUMBER
    await root.change(alice, nickname=None)
    assert await reads(root) == 4 * [("staff.read", alice, {"what": "user"})]


@pytest.mark.slow
async def test_180_searches_hide_none_of_5_reads(root: Admin, sue: Admin, alice: str) -> None:
    for _ in range(MAX_WAITING + 80):
        await root.read("/users")
    for _ in range(5):
        await root.read(f"/users/{alice}/phone")
    await sue.read("/users")
    stored = (await root.read("/events", type=["staff.searched", "staff.read"], limit=200))["items"]
    assert [event["data"] for event in stored[:6]] == [{"term": "none", "found": 3}, *5 * [{"what": "phone"}]]
    assert [event["data"] for event in stored if "count" in event["data"]] == [{"count": 80}]
    assert len(stored) == MAX_WAITING + 1 + 6


@pytest.mark.slow
async def test_a_read_beyond_its_readers_places_is_refused(stage: Stage, root: Admin, sue: Admin, alice: str) -> None:
    path = f"/users/{alice}"
    for _ in range(MAX_WAITING):
        await root.read(path)
    problem_of(await root.ask("GET", path), "rate_limited", 429)
    await sue.read(path)
    await stage.services[StaffReads].store()
    await root.read(path)


async def test_reads_in_an_outage_are_stored_after_it(stage: Stage, root: Admin, proxy: Proxy) -> None:
    services = await stage.make_services(database_url=proxy.url)
    admin = Admin(stage.make_client(services), root.answer)
    await admin.read("/users")
    await proxy.refuse()
    with pytest.raises(StorageUnavailable):
        await services[StaffReads].store()
    await proxy.accept()
    await services[StaffReads].store()
    assert await stage.number("events WHERE type = 'staff.searched'") == 1


async def test_the_last_reads_are_stored_at_shutdown_without_the_address_of_who_was_erased_meanwhile(
    stage: Stage, root: Admin
) -> None:
    await root.read("/users")
    await stage.rows.execute("DELETE FROM users WHERE id = $1", root.id)
    await stage.services[StaffReads].aclose()
    assert await recorded(stage.rows, "actor, ip", "type = 'staff.searched'") == [(root.id, None)]


# Masked phone numbers.


async def test_support_sees_phone_numbers_masked_and_one_when_it_asks(sue: Admin, alice: str) -> None:
    assert [user["phone"] for user in (await sue.read("/users", q="138 0013 8000"))["items"]] == [MASKED]
    assert (await sue.read(f"/users/{alice}"))["phone"] == MASKED
    assert (await sue.change(alice, status="disabled"))["phone"] == MASKED
    assert await sue.read(f"/users/{alice}/phone") == {"phone": NUMBER, "phone_verified": True}
    assert await sue.read(f"/users/{sue.id}/phone") == {"phone": None, "phone_verified": None}
    assert ("staff.read", alice, {"what": "phone"}) in await reads(sue)


@swept(
    ("phone", "shown"),
    [
        ("+8613800138000", MASKED),
        ("+85291234567", "+852****4567"),
        ("+123456789", "+1****6789"),
        ("+12345678", "+******78"),
        ("+12", "+12"),
    ],
)
def test_four_digits_of_a_number_are_hidden(phone: str, shown: str) -> None:
    assert masked(phone) == shown


@swept(
    ("text", "term"),
    [
        ("13800138001", TermKind.PHONE),
        ("+86 138 0013 8001", TermKind.PHONE),
        ("8613800138001", TermKind.PHONE),
        ("+852 9123 4567", TermKind.PHONE),
        ("01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17", TermKind.USER_ID),
        ("01933C5E-8F1A-7C3E-9B1D-2F6A4E8C0D17", TermKind.USER_ID),
        ("oGZUI0egBJY1zhBYw2KhdUfwVJJE", TermKind.WECHAT_ID),
        ("小明", TermKind.TEXT),
        ("10023", TermKind.TEXT),
        ("138", TermKind.TEXT),
        ("Alice", TermKind.TEXT),
        ("", TermKind.NONE),
        (None, TermKind.NONE),
    ],
)
def test_the_form_of_a_term_says_what_it_is(text: str | None, term: TermKind) -> None:
    assert term_kind_of(text, region="CN") is term
