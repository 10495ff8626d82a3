"""The search for users by text (a complete value, or a part of a nickname) and by filters."""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache, partial
from typing import Annotated, Any, Final, LiteralString
from uuid import UUID

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from wxauth.core.clock import FIRST_ID, LAST_ID
from wxauth.core.database import Database
from wxauth.core.statements import Statement
from wxauth.core.users import LAST_SEEN_AT, USER, UserFields, UserStatus
from wxauth.settings.roles import ADMIN, Role
from wxauth.users.phone_numbers import is_phone_number, possible_phone_numbers
from wxauth.users.window_queries import SEARCH_SECONDS, search_in_windows
from wxauth.web.pages import Page, PageQuery
from wxauth.web.schemas import TEXT_PATTERN, DateOrTime, OrEmpty, StoredText


class UsersQuery(PageQuery):
    q: Annotated[str, StringConstraints(strip_whitespace=True, max_length=256, pattern=TEXT_PATTERN)] | None = Field(
        default=None,
        description="A complete openid, unionid, external_id, user ID or phone number, or part of a nickname. Text "
        "that looks like a phone number, an openid, a unionid or a user ID must match exactly.",
    )
    status: Annotated[UserStatus | None, OrEmpty] = Field(default=None, description="List only users with this status.")
    role: Annotated[Role | None, OrEmpty] = Field(default=None, description="List only users with this role.")
    app_id: StoredText | None = Field(default=None, description="List only users with an identity in this app.")
    seen_before: Annotated[DateOrTime | None, OrEmpty] = Field(
        default=None,
        description="List only users whose `last_seen_at` is before this date in UTC, or before this time with an "
        "offset. If `last_seen_at` is null, `created_at` counts instead.",
        examples=["2025-12-01"],
    )


class IdentityJson(TypedDict):
    """One openid in one app."""

    app_id: Annotated[str, Field(examples=["wx1a2b3c4d5e6f7a8b"])]
    openid: Annotated[str, Field(examples=["o6_bmjrPTlm6_2sgVt7hMZOPfL2M"])]


class UserWithIdentities(UserFields):
    """A user, with all identities, the oldest first."""

    identities: list[IdentityJson]


class ListedUser(UserWithIdentities):
    """A user as staff see the user, with all identities and the details of a ban."""

    ban_reason: str | None
    banned_until: datetime | None


class TermKind(StrEnum):
    """The kinds of search terms. Few nicknames look like the first three kinds, which match only complete values."""

    USER_ID = "user_id"
    PHONE = "phone"
    WECHAT_ID = "wechat_id"  # an openid or a unionid, which look alike
    TEXT = "text"  # an external id, or a part of a nickname
    NONE = "none"


WINDOWS: Final = (1_000, 100_000)  # users in the first statement, and in each further one, which takes 30 to 100 ms
MIN_INDEXED_LENGTH: Final = 2  # the index contains pairs of characters
IDENTITIES_FRAGMENT: Final = """(
    SELECT COALESCE(jsonb_agg(jsonb_build_object('app_id', i.app_id, 'openid', i.openid)
                              ORDER BY i.created_at, i.app_id, i.openid), '[]')
      FROM identities i WHERE i.user_id = users.id
) AS identities"""
_WITH_IDENTITIES: Final = f"SELECT {USER}, ban_reason, banned_until, {IDENTITIES_FRAGMENT} FROM users"
USER_BY_ID: Final = Statement[ListedUser](f"""
{_WITH_IDENTITIES} WHERE users.id = COALESCE((SELECT user_id FROM former_users WHERE id = :user_id), :user_id)
""")
# A search uses only the conditions whose parameters are given.
_CONDITIONS: Final[Mapping[str, LiteralString]] = {
    "user_ids": "users.id = ANY (:user_ids)",
    # In the collation of the column, "C", lower() would not change É.
    "part": 'strpos(lower(users.nickname COLLATE "default"), lower(:part)) > 0',
    # A text that few nicknames contain. The users are selected by their ids and not with a join, because PostgreSQL
    # expects one user in a thousand to have such a nickname, and would examine ten million users to find fifty.
    "rare_part": """users.id = ANY (ARRAY(WITH matching AS MATERIALIZED (
        SELECT u.id FROM users u
         WHERE u.nickname IS NOT NULL AND nickname_bigrams(u.nickname) @> nickname_bigrams(:rare_part)
           AND strpos(lower(u.nickname COLLATE "default"), lower(:rare_part)) > 0)
        SELECT id FROM matching WHERE id < :before AND id >= :lowest ORDER BY id DESC LIMIT :limit))""",
    "status": "users.status = :status",
    "role": ":role = ANY (users.roles)",
    "seen_before": f"COALESCE({LAST_SEEN_AT}, users.created_at) < :seen_before",
    "app_id": "EXISTS (SELECT FROM identities i WHERE i.user_id = users.id AND i.app_id = :app_id)",
}
_LOWEST_IN_WINDOW: Final = Statement[UUID](
    "SELECT id FROM users WHERE id < :before ORDER BY id DESC OFFSET :size LIMIT 1"
)
# Openids have no index of their own, which would slow down each first login. So the statement reads the apps one by one
# from the primary key, whose first column they are, and looks the openid up in each.
_USERS_WITH_ID_OR_PHONE: Final = Statement[UUID]("""
WITH RECURSIVE apps (app_id) AS (
    (SELECT app_id FROM identities ORDER BY app_id LIMIT 1)
    UNION ALL
    SELECT (SELECT i.app_id FROM identities i WHERE i.app_id > apps.app_id ORDER BY i.app_id LIMIT 1)
      FROM apps WHERE apps.app_id IS NOT NULL
)
SELECT user_id AS id FROM unionids WHERE unionid = :text
 UNION
SELECT id FROM users WHERE external_id = :text
 UNION
SELECT user_id FROM former_external_ids WHERE external_id = :text
 UNION
SELECT id FROM users WHERE phone = ANY (:phones)
 UNION
SELECT id FROM users WHERE id = :id
 UNION
SELECT user_id FROM former_users WHERE id = :id
 UNION
SELECT i.user_id FROM apps JOIN identities i ON i.app_id = apps.app_id AND i.openid = :text
""")
_WECHAT_ID: Final = re.compile(r"[A-Za-z0-9_-]{24,36}")


async def find_users(
    database: Database, query: UsersQuery, *, region: str, seconds: float = SEARCH_SECONDS
) -> Page[ListedUser]:
    """Return a page of the users that match a query, the newest first, with their identities.

    Whether the text counts as an id or as part of a nickname depends neither on the other filters nor on the cursor.
    Otherwise, the first page could list the user with this id, and the second page users with such a nickname. A search
    that no index serves examines windows of users, and returns what it has found after `seconds`.
    """
    filters = await _filters_of(database, query, region=region)
    if filters is None:
        return Page((), None)
    only_admins = query.role == ADMIN
    users_between = partial(database.rows, _search_statement(frozenset(filters), only_admins=only_admins), **filters)
    before = query.cursor or LAST_ID
    if "user_ids" in filters or only_admins:  # an index finds these users
        return Page.of(await users_between(before=before, lowest=FIRST_ID, limit=query.limit + 1), query.limit)
    # If a text has not filled a page from the first two windows, or not in time, it is rare in nicknames, so the index
    # finds the remaining users. The search with the index has no other filters.
    is_indexed = filters.keys() == {"part"} and len(filters["part"]) >= MIN_INDEXED_LENGTH
    rare_part_statement = _search_statement(frozenset({"rare_part"}), only_admins=False)
    return await search_in_windows(
        database,
        _LOWEST_IN_WINDOW,
        users_between,
        search_remaining=partial(database.rows, rare_part_statement, rare_part=query.q) if is_indexed else None,
        before=before,
        limit=query.limit,
        windows=WINDOWS,
        seconds=seconds,
    )


async def _filters_of(database: Database, query: UsersQuery, *, region: str) -> dict[str, Any] | None:
    """Return None if the query can match no user."""
    # pydantic would warn about the status from `wxauth users list`, which is a text and not a `UserStatus`.
    filters = query.model_dump(include={"status", "role", "app_id", "seen_before"}, exclude_none=True, warnings=False)
    if not query.q:
        return filters
    phones = possible_phone_numbers(query.q, region=region)
    user_ids = await database.values(_USERS_WITH_ID_OR_PHONE, text=query.q, phones=phones, id=as_user_id(query.q))
    if user_ids:
        return {**filters, "user_ids": user_ids}
    if term_kind_of(query.q, region=region) is TermKind.TEXT:
        return {**filters, "part": query.q}
    return None


@cache
def _search_statement(names: frozenset[str], *, only_admins: bool) -> Statement[ListedUser]:
    conditions: list[LiteralString] = [_CONDITIONS[name] for name in sorted(names)]
    if only_admins:
        # The role is a literal and not a parameter, so that PostgreSQL uses the partial index.
        conditions.append("'admin' = ANY (users.roles)")
    where = " AND ".join(("users.id < :before AND users.id >= :lowest", *conditions))
    return Statement[ListedUser](f"{_WITH_IDENTITIES} WHERE {where} ORDER BY users.id DESC LIMIT :limit")


def term_kind_of(text: str | None, *, region: str) -> TermKind:
    if not text:
        return TermKind.NONE
    if as_user_id(text) is not None:
        return TermKind.USER_ID
    if is_phone_number(text, region=region):
        return TermKind.PHONE
    return TermKind.WECHAT_ID if _WECHAT_ID.fullmatch(text) else TermKind.TEXT


def as_user_id(text: str) -> UUID | None:
    """Return the UUID of a text in the form of responses. `UUID` would also accept one without hyphens."""
    try:
        user_id = UUID(text)
    except ValueError:
        return None
    return user_id if str(user_id) == text.lower() else None
