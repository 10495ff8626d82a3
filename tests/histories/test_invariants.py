"""Each check of a history reports the faults that these tests plant, and reports nothing if there are no faults."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.histories.found import OF_PEOPLE, Found, Refreshed
from tests.histories.invariants import OWNERLESS, check, everything_has_an_owner, history_of
from tests.histories.town import Asked
from tests.world import Body
from wxauth.core.models import all_tables
from wxauth_desk.wechat import APPS
from wxauth_desk.wechat.people import openid_of, unionid_of

pytestmark = pytest.mark.no_database

ONE, OTHER = (app["app_id"] for app in APPS)
ALICE, BOB, CAROL, GONE = (UUID(int=number) for number in (1, 2, 3, 4))
NAMES = {ALICE: "alice", BOB: "bob", CAROL: "carol", GONE: "gone"}
OPEN, OVER = UUID(int=11), UUID(int=12)
AT = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def event(number: int, kind: str, user_id: UUID, app_id: str | None = None, **data: Any) -> Body:
    return {
        "id": str(UUID(int=100 + number)),
        "type": kind,
        "at": f"2026-11-20T08:{number:02}:00Z",
        "user_id": str(user_id),
        "app_id": app_id,
        "actor": "system",
        "data": data,
    }


def asked(began: int, what: str, user_id: UUID, value: Any = None, **more: Any) -> Asked:
    """Return a request that succeeded. Other fields of `Asked` can be set by name."""
    usual = {"who": "somebody", "person": NAMES[user_id], "app_id": ONE, "ended": began + 1, "status": 200}
    return Asked(what=what, user_id=str(user_id), value=value, began=began, **{**usual, **more})


def identity(person: str, app_id: str, user_id: UUID, *, has_unionid: bool = False) -> dict[str, Any]:
    unionid = unionid_of(person) if has_unionid else None
    return {"app_id": app_id, "openid": openid_of(person, app_id), "user_id": user_id, "unionid": unionid}


def session(session_id: UUID, user_id: UUID, person: str, *, is_over: bool = False) -> dict[str, Any]:
    return {"id": session_id, **identity(person, ONE, user_id), "revoked_at": AT if is_over else None}


def user(user_id: UUID, **fields: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"status": "active", "roles": [], "consents": None, "phone": None, "unionid": None}
    return {"id": user_id, "nickname": None, "ban_reason": None, "erase_at": None, **nothing, **fields}


@pytest.fixture
def found() -> Found:
    """A town without faults.

    Carol was merged into Alice. Bob is banned and has left an app. Another user is erased.
    """
    trail = [
        event(1, "user.created", ALICE, ONE),
        event(2, "user.created", BOB, ONE, roles=["member"]),
        event(3, "user.created", CAROL, OTHER),
        event(4, "consent.given", CAROL, OTHER, document="privacy", version="1"),
        event(5, "user.phone_bound", ALICE),
        event(6, "user.roles_changed", ALICE, before=[], after=["role-1"]),
        event(7, "user.merged", ALICE, former_id=str(CAROL)),
        event(8, "identity.added", ALICE, OTHER),
        event(9, "user.banned", BOB),
        event(10, "session.ended", BOB, session_ids=[str(OVER)], reason="banned"),
        event(11, "user.created", GONE, ONE),
        event(12, "user.erased", GONE, former_ids=[]),
        event(13, "identity.added", BOB, OTHER),
        event(14, "identity.removed", BOB, OTHER),
    ]
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in all_tables().tables}
    tables |= {
        "users": [
            user(ALICE, roles=["role-1"], consents='{"privacy": "1"}', phone="+8613800138000", nickname="name 1")
            | {"unionid": unionid_of("alice")},
            user(BOB, status="disabled", roles=["member"], ban_reason="ban 1"),
        ],
        "identities": [
            identity("alice", ONE, ALICE, has_unionid=True),
            identity("alice", OTHER, ALICE, has_unionid=True),
            identity("bob", ONE, BOB),
        ],
        "unionids": [{"unionid": unionid_of("alice"), "user_id": ALICE}],
        "former_users": [{"id": CAROL, "user_id": ALICE}],
        "sessions": [session(OPEN, ALICE, "alice"), session(OVER, BOB, "bob", is_over=True)],
        "consents": [{"user_id": CAROL, "document": "privacy", "app_id": OTHER}],
    }
    logged_in = {"unionid": True}
    answer = {"session_id": str(OPEN)}
    return Found(
        tables,
        list(trail),
        list(trail),
        [
            asked(1, "log in", ALICE, logged_in, answer=answer),
            asked(3, "change name", ALICE, "name 1"),
            asked(5, "give roles", ALICE, "role-1"),
            asked(7, "merge", CAROL, str(ALICE)),
            asked(9, "ban", BOB, "ban 1"),
            asked(11, "erase", GONE),
        ],
        [Refreshed(str(OPEN), 200, ""), Refreshed(str(OVER), 400, "session_revoked")],
        [{"event": "logged_in", "level": "info"}],
    )


Plant = Callable[[Found], object]


def row(found: Found, table: str, number: int = 0) -> Any:
    return found.tables[table][number]


def add(found: Found, *more: Asked) -> None:
    found.asked = [*found.asked, *more]


def changed(table: str, number: int = 0, **fields: Any) -> Plant:
    """Change a row."""
    return lambda found: row(found, table, number).update(fields)


def was_asked(*asked: Asked) -> Plant:
    """Add requests whose changes aren't in the database."""
    return lambda found: add(found, *asked)


def has(name: str, value: object) -> Plant:
    """Set another part of the town to this value."""
    return lambda found: setattr(found, name, value)


def swap(events: list[Body]) -> object:
    """Swap the fifth and the sixth event."""
    events[4:6] = reversed(events[4:6])
    return events


def both(*plants: Plant) -> Plant:
    return lambda found: [plant(found) for plant in plants]


ELSEWHERE = asked(20, "log in", BOB, {"unionid": True}, person="alice", app_id=OTHER, answer={"session_id": str(OVER)})
"""A login in which Alice enters the other app as Bob."""
PLANTED: dict[str, tuple[Plant, UUID | str | None, str]] = {
    # 1. Siblings learn what has happened.
    "a lost role": (changed("users", roles=[]), ALICE, "roles"),
    "an identity that nobody was told of": (
        lambda found: found.tables["identities"].append(identity("bob", OTHER, BOB)),
        *(BOB, "apps"),
    ),
    "a user who is gone without a word": (lambda found: found.tables["users"].pop(), BOB, "does not exist"),
    "a merge into another one": (changed("former_users", user_id=BOB), CAROL, f"into {BOB}"),
    "a time that runs backwards": (lambda found: swap(found.trail), ALICE, "by its time"),
    "a feed of another order": (
        lambda found: (swap(found.feed), [each.update(at="2026-11-20T08:05:00Z") for each in found.trail]),
        *(ALICE, "the reverse"),
    ),
    # 2. One person is one user.
    "a unionid of two users": (changed("identities", 1, user_id=BOB), BOB, "is"),
    "a row of an identity that is another's": (changed("sessions", user_id=BOB), BOB, "which is another's"),
    "a person of two users": (
        both(changed("identities", 1, user_id=BOB, unionid=None), was_asked(ELSEWHERE)),
        *("alice", "is 2 users"),
    ),
    # 3. Acknowledged changes have happened.
    "a lost ban": (was_asked(asked(20, "ban", ALICE, "ban 2")), ALICE, "is not banned"),
    "a ban that an earlier unban or a refused one would explain": (
        was_asked(asked(14, "unban", ALICE), asked(20, "ban", ALICE, "ban 2"), asked(22, "unban", ALICE, status=403)),
        *(ALICE, "is not banned"),
    ),
    "a session that was opened": (lambda found: found.tables["sessions"].pop(0), ALICE, "the session is gone"),
    "sessions that were ended": (was_asked(asked(20, "end sessions", ALICE)), ALICE, "is open"),
    "an erased user": (was_asked(asked(20, "erase", BOB)), BOB, "is there though erased"),
    "a lost merge": (was_asked(asked(20, "merge", BOB, str(ALICE))), BOB, "is not merged"),
    "a ban of a user who is there, not found": (
        was_asked(asked(20, "ban", ALICE, "ban 2", status=404)),
        *(ALICE, "is not found"),
    ),
    # 4. Users who may not log in have no session.
    "a banned user's open session": (changed("sessions", 1, revoked_at=None), BOB, "banned, and"),
    "a token that outlives its session": (
        has("refreshed", [Refreshed(str(OVER), 200, "")]),
        *(BOB, "is over, its token: 200"),
    ),
    "a banned person's browser": (has("silent", {"bob": str(BOB)}), BOB, "goes on for who may not come in"),
    # 6. An outage causes no faults.
    "an answer 500": (was_asked(asked(20, "export", BOB, status=500)), BOB, "500"),
    "a logged fault": (has("lines", [{"event": "request_failed", "level": "error"}]), None, "logged"),
}


@pytest.mark.slow
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_reported(found: Found, planted: str) -> None:
    plant, about, text = PLANTED[planted]
    plant(found)
    reported = check(found)
    assert any(fault.about == (about and str(about)) and text in fault.text for fault in reported), reported


def test_a_browser_that_has_logged_in_again_is_not_reported(found: Found) -> None:
    row(found, "users", 1).update(status="active")
    found.silent = {"bob": str(BOB)}
    add(found, asked(22, "end sessions", BOB, ended=30), asked(24, "log in in a browser", BOB))
    assert not any("goes on" in fault.text for fault in check(found))


def test_a_token_that_was_used_is_reported_unless_the_answer_with_its_successor_was_lost(found: Found) -> None:
    found.refreshed = [Refreshed(str(OPEN), 400, "refresh_token_reused")]
    add(found, asked(20, "refresh", ALICE, str(OPEN)))
    assert any("is open, its token" in fault.text for fault in check(found))
    add(found, asked(22, "refresh", ALICE, str(OPEN), status=503))
    assert check(found) == []


def test_a_users_history_is_what_was_asked_and_recorded_about_them_and_those_merged_with_them(found: Found) -> None:
    add(found, asked(20, "ban", BOB, status=403), asked(22, "unban", BOB))
    told = history_of(found, str(ALICE))
    assert "merge" in told
    assert f"user.created {CAROL}" in told
    assert str(BOB) not in told
    assert history_of(found, str(BOB)).count("somebody:") == 2, "a refused request has changed nothing"


def test_a_row_without_its_owner_is_reported_in_every_table(found: Found) -> None:
    """5. The tables are those of the models, so the test also covers new tables."""
    checked = OF_PEOPLE.keys() - OWNERLESS.keys()
    assert checked >= {"sessions", "consents", "refusals", "avatars", "site_logins", "phone_answers", "former_users"}
    nobodys = {"id": UUID(int=99), "user_id": GONE, "app_id": ONE, "openid": "nobody's", "unionid": None}
    nobodys |= {"session_id": UUID(int=98), "revoked_at": AT}
    for name in checked:
        planted = {column: value for column, value in nobodys.items() if column in OF_PEOPLE[name]}
        found.tables[name].append(planted)
        assert any(name in fault.text for fault in everything_has_an_owner(found)), name
        found.tables[name].remove(planted)
    assert check(found) == [], "a town at rest has no faults"


@pytest.mark.parametrize(
    ("lost", "explained_by"),
    [
        (asked(20, "ban", ALICE, "ban 2"), asked(22, "unban", ALICE)),
        (asked(20, "ban", ALICE, "ban 2"), asked(22, "unban", ALICE, status=503)),
        (asked(20, "leave", BOB), asked(22, "log in", BOB, {"stays": True}, status=503)),
        (asked(20, "change name", BOB, "name 2"), asked(22, "withdraw in WeChat", BOB)),
    ],
)
def test_what_another_request_explains_is_not_reported(found: Found, lost: Asked, explained_by: Asked) -> None:
    add(found, lost, explained_by)
    assert [fault for fault in check(found) if str(lost) in fault.text] == []


def test_a_user_who_is_not_found_may_be_gone_with_an_account_that_was_closed_unknown(found: Found) -> None:
    merge = asked(20, "merge", ALICE, str(GONE), status=404)
    found.asked = [each for each in found.asked if each.person != "gone"]
    add(found, asked(2, "log in", GONE, {}, status=403), merge)
    assert any("is not found" in fault.text for fault in check(found))
    closed = asked(4, "withdraw everything", GONE, "everything", ended=8)
    closed.user_id = None
    add(found, closed)
    assert [fault for fault in check(found) if "is not found" in fault.text] == []
