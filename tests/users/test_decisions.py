"""The decisions about a change of status or roles are made before anything is stored."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from wxauth.core.trail import EventType
from wxauth.core.users import UserStatus
from wxauth.i18n import TextError
from wxauth.merging.merging import BY_OPERATOR, BY_UNIONID, MergePair, MergeSource, status_and_roles_of_both
from wxauth.users.admin import UserChange
from wxauth.users.status_queries import Ban, Ending, StatusAndRoles, StatusChange
from wxauth_guard.errors import InvalidRequest

pytestmark = pytest.mark.no_database

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
SOONER, LATER = NOW + timedelta(minutes=5), NOW + timedelta(minutes=10)
BANNED, ACTIVE = UserStatus.DISABLED, UserStatus.ACTIVE
EDITOR = StatusAndRoles(("editor",))
SPAM = Ban("spam", SOONER)
ONE, OTHER, THIRD = map(UUID, (f"{n:032x}" for n in range(3)))
MANY = [f"r{number:02}" for number in range(32)]


def of(*roles: str, ban: Ban | None = None) -> StatusAndRoles:
    return StatusAndRoles(roles, ban)


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        (EDITOR, {}, EDITOR),
        (EDITOR, {"status": ACTIVE, "roles": ["editor", "editor"]}, EDITOR),
        (EDITOR, {"status": BANNED}, of("editor", ban=Ban())),
        (EDITOR, {"status": BANNED, "roles": ["x"], "until": LATER}, of("x", ban=Ban(None, LATER))),
        (EDITOR, {"roles": []}, of()),
        (EDITOR, {"roles": ["support", "admin", "support"]}, of("support", "admin")),
        (EDITOR, {"roles": [*MANY, "r00"]}, of(*MANY)),
        (EDITOR, {"granted_role": "admin"}, of("editor", "admin")),
        (EDITOR, {"revoked_role": "editor"}, of()),
        (EDITOR, {"revoked_role": "admin"}, EDITOR),
        (of(ban=SPAM), {"reason": "more"}, of(ban=Ban("more", SOONER))),
        (of(ban=SPAM), {"until": LATER}, of(ban=Ban("spam", LATER))),
        (of(ban=SPAM), {"roles": ["x"]}, of("x", ban=SPAM)),
        (of(ban=SPAM), {"status": BANNED, "until": LATER}, of(ban=Ban(None, LATER))),
        (of(ban=SPAM), {"status": BANNED}, of(ban=Ban())),
        (of(ban=SPAM), {"status": ACTIVE}, of()),
    ],
)
def test_a_change_sets_its_fields_and_a_ban_replaces_one(
    before: StatusAndRoles, change: dict[str, Any], after: StatusAndRoles
) -> None:
    assert UserChange(**change).applied_to(before) == after


@pytest.mark.parametrize("change", [{"roles": [*MANY, "x"]}, {"roles": MANY, "granted_role": "x"}])
def test_nobody_gets_more_roles_than_there_may_be(change: dict[str, Any]) -> None:
    with pytest.raises(TextError, match="32"):
        UserChange(**change).applied_to(EDITOR)


@pytest.mark.parametrize(
    ("before", "change", "field"),
    [
        (EDITOR, {"reason": "spam"}, "reason"),
        (EDITOR, {"until": LATER}, "until"),
        (of(ban=SPAM), {"status": ACTIVE, "reason": "spam"}, "reason"),
    ],
)
def test_who_is_not_banned_has_no_reason_and_no_end(before: StatusAndRoles, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        UserChange(**change).applied_to(before)
    assert [error.field for error in refused.value.errors] == [field]


UNBANNED, BANNED_AGAIN, ROLES = EventType.USER_UNBANNED, EventType.USER_BANNED, EventType.ROLES_CHANGED


@pytest.mark.parametrize(
    ("before", "after", "events", "endings"),
    [
        (of("x", "y"), of("y", "x"), {}, set()),
        (of(), of(ban=SPAM), {BANNED_AGAIN: {"reason": "spam", "until": SOONER}}, {Ending.ALL}),
        (of(ban=SPAM), of(ban=SPAM), {}, {Ending.ALL}),
        (of(ban=SPAM), of(ban=Ban()), {BANNED_AGAIN: {}}, {Ending.ALL}),
        (of(ban=SPAM), of(), {UNBANNED: None}, set()),
        (of("x"), of("y"), {ROLES: {"before": ("x",), "after": ("y",)}}, set()),
        (of("x"), of("x", "admin"), {ROLES: {"before": ("x",), "after": ("x", "admin")}}, {Ending.BROWSERS}),
        (of("support"), of(), {ROLES: {"before": ("support",), "after": ()}}, {Ending.CONSOLES}),
        (
            of("support"),
            of("admin"),
            {ROLES: {"before": ("support",), "after": ("admin",)}},
            {Ending.CONSOLES, Ending.BROWSERS},
        ),
        (
            of("admin", ban=SPAM),
            of("support", ban=SPAM),
            {ROLES: {"before": ("admin",), "after": ("support",)}},
            {Ending.ALL},
        ),
        (of("x"), of(ban=Ban()), {BANNED_AGAIN: {}, ROLES: {"before": ("x",), "after": ()}}, {Ending.ALL}),
    ],
)
def test_what_has_changed_is_recorded_and_ends_sessions(
    before: StatusAndRoles, after: StatusAndRoles, events: dict[EventType, Any], endings: set[Ending]
) -> None:
    change = StatusChange(ONE, before, after)
    assert (change.events, change.endings) == (events, endings)


@pytest.mark.parametrize(
    ("former", "remaining", "administrators", "after"),
    [
        (of("b"), of("a"), [], of("a", "b")),
        (of("admin"), of(*MANY), [ONE, THIRD], of("admin", *MANY[:31])),
        (of(ban=SPAM), of(), [], of(ban=SPAM)),
        (of(), of(ban=SPAM), [], of(ban=SPAM)),
        (of(ban=SPAM), of(ban=Ban("later", LATER)), [], of(ban=Ban("later", LATER))),
        (of(ban=Ban("for good")), of(ban=SPAM), [], of(ban=Ban("for good"))),
        (of(ban=Ban("over", NOW)), of(), [], of()),
        (of(ban=SPAM), of("admin"), [OTHER], of("admin")),
        (of("admin"), of(ban=SPAM), [ONE], of("admin")),
    ],
)
@pytest.mark.parametrize("source", [BY_UNIONID, BY_OPERATOR])
def test_who_is_merged_has_the_roles_of_both_and_the_longer_ban_if_an_administrator_is_left(
    former: StatusAndRoles,
    remaining: StatusAndRoles,
    administrators: list[UUID],
    after: StatusAndRoles,
    source: MergeSource,
) -> None:
    pair = MergePair(ONE, OTHER, former, remaining, frozenset(administrators))
    assert status_and_roles_of_both(pair, source, now=NOW) == after


@pytest.mark.parametrize(
    ("source", "roles"), [(BY_UNIONID, ("editor",)), (BY_OPERATOR, ("admin", "editor", "support"))]
)
def test_a_ban_that_wechat_joins_to_staff_takes_their_roles(source: MergeSource, roles: tuple[str, ...]) -> None:
    former, remaining = of("support", ban=SPAM), of("admin", "editor")
    pair = MergePair(ONE, OTHER, former, remaining, frozenset([OTHER, THIRD]))
    assert status_and_roles_of_both(pair, source, now=NOW) == of(*roles, ban=SPAM)
