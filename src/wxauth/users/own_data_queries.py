"""The statements that read everything stored about one person, except secrets."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from wxauth.core.database import Snapshot
from wxauth.core.statements import Statement
from wxauth.core.users import USER, UserFields
from wxauth.sessions.devices import describe_device
from wxauth.sessions.queries import FOR_RESOURCE, OPENED

PAGE: Final = 250
"""Rows read and serialized at once. That takes some milliseconds, during which the event loop answers nobody else."""

Told = Mapping[str, object]
"""A row as the person sees it, whatever its columns are."""


USER_OF_EXPORT: Final = Statement[UserFields](f"SELECT {USER} FROM users WHERE id = :user_id")
"""The user; None if there is none."""
UNIONIDS: Final = Statement[str]("SELECT unionid FROM unionids WHERE user_id = :user_id ORDER BY unionid")
"""Every unionid that the person has ever had."""
_IDENTITIES: Final = Statement[Told]("""
SELECT app_id, openid, unionid, created_at FROM identities WHERE user_id = :user_id ORDER BY created_at, app_id, openid
""")
_SESSIONS: Final = Statement[Told](f"""
SELECT id, app_id, openid, abbrev(ip) AS ip, user_agent, {OPENED}, created_at, last_used_at, expires_at,
       revoked_at AS ended_at, revoked_reason AS ended_reason,
       client_id, scope, authenticated_at, authenticated_by, {FOR_RESOURCE}
  FROM sessions WHERE user_id = :user_id ORDER BY id
""")
_BROWSERS: Final = Statement[Told]("""
SELECT app_id, openid, authenticated_at, authenticated_by,
       ARRAY(SELECT client_id FROM browser_login_sites WHERE browser_login_id = browser_logins.id ORDER BY client_id)
           AS sites
  FROM identities JOIN browser_logins USING (app_id, openid)
 WHERE user_id = :user_id ORDER BY authenticated_at, browser_logins.id
""")
_CONSENTS: Final = Statement[Told]("""
SELECT document, version, given_at, withdrawn_at, app_id, abbrev(ip) AS ip
  FROM consents WHERE user_id = ANY (:user_ids::uuid[]) ORDER BY given_at DESC, id DESC
""")
# Another person's id reads `administrator`, and that person's address is left out: both are that person's data. Names
# of service clients, and `system`, `operator` and `wechat`, belong to no person and stay. The reason that staff note
# for a ban is for staff alone. A user who was split from this person is another person.
_EVENTS: Final = Statement[Told]("""
SELECT id, type, at, app_id,
       CASE WHEN type = 'user.banned' THEN data - 'reason'
            WHEN type = 'user.split' THEN data - '{new_user_id,app_ids}'::text[]
            WHEN type = 'user.merged' AND data ->> 'former_id' <> ALL (:user_ids::uuid[]::text[])
            THEN data - 'former_id'
            ELSE data END AS data,
       CASE WHEN is_another THEN 'administrator' ELSE actor END AS actor,
       CASE WHEN NOT is_another THEN abbrev(ip) END AS ip
  FROM (SELECT *, actor ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' AND actor <> ALL (:user_ids::uuid[]::text[])
                  AS is_another
          FROM events WHERE user_id = ANY (:user_ids::uuid[])) AS theirs
 ORDER BY id
""")
_REFUSALS: Final = Statement[Told]("""
SELECT at, code, wechat_errcode, app_id, network::text AS network, request_id, count
  FROM refusals WHERE user_id = ANY (:user_ids::uuid[]) ORDER BY id
""")
# PostgreSQL breaks base64 into lines.
PICTURE: Final = Statement[Told](r"""
SELECT content_type, translate(encode(content, 'base64'), E'\n', '') AS content, created_at
  FROM avatars WHERE user_id = :user_id
""")
"""The picture of the person, in base64; None if there is none."""


def lists_of(
    state: Snapshot, user_id: UUID, former_ids: Sequence[UUID]
) -> Iterator[tuple[str, AsyncGenerator[Sequence[Told]]]]:
    """Each list in pages, by its name. What is stored under any of the person's ids names nobody else."""
    for name, statement in (("identities", _IDENTITIES), ("sessions", _SESSIONS), ("browsers", _BROWSERS)):
        yield name, _pages(state, statement, user_id=user_id)
    for name, statement in (("consents", _CONSENTS), ("events", _EVENTS), ("refusals", _REFUSALS)):
        yield name, _pages(state, statement, user_ids=[user_id, *former_ids])


async def _pages(state: Snapshot, statement: Statement[Told], **arguments: Any) -> AsyncGenerator[Sequence[Told]]:
    async for page in state.pages(statement, PAGE, **arguments):
        yield [_session(dict(row)) if statement is _SESSIONS else dict(row) for row in page]


def _session(row: dict[str, Any]) -> dict[str, object]:
    """A session with its devices described, and with the place from which it was opened."""
    ip, user_agent = row.pop("opened_ip"), row.pop("opened_user_agent")
    opened = {"ip": None if ip is None else str(ip), "device": describe_device(user_agent), "user_agent": user_agent}
    return {**row, "device": describe_device(row["user_agent"]), "opened": opened}
