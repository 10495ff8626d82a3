"""The statements that read everything stored about one user, except secrets."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from wxauth.core.database import Snapshot
from wxauth.core.statements import Statement
from wxauth.core.users import USER, UserFields
from wxauth.sessions.devices import describe_device
from wxauth.sessions.list_queries import FOR_RESOURCE, OPENED

# Serializing a page takes some milliseconds, during which the event loop handles no other request.
PAGE_SIZE: Final = 250

ExportedRow = Mapping[str, object]

USER_OF_EXPORT: Final = Statement[UserFields](f"SELECT {USER} FROM users WHERE id = :user_id")
UNIONIDS: Final = Statement[str]("SELECT unionid FROM unionids WHERE user_id = :user_id ORDER BY unionid")
_IDENTITIES: Final = Statement[ExportedRow]("""
SELECT app_id, openid, unionid, created_at FROM identities WHERE user_id = :user_id ORDER BY created_at, app_id, openid
""")
_SESSIONS: Final = Statement[ExportedRow](f"""
SELECT id, app_id, openid, abbrev(ip) AS ip, user_agent, {OPENED}, created_at, last_used_at, expires_at,
       revoked_at AS ended_at, revoked_reason AS ended_reason,
       client_id, scope, authenticated_at, authenticated_by, {FOR_RESOURCE}
  FROM sessions WHERE user_id = :user_id ORDER BY id
""")
_BROWSERS: Final = Statement[ExportedRow]("""
SELECT app_id, openid, authenticated_at, authenticated_by,
       ARRAY(SELECT client_id FROM browser_login_sites WHERE browser_login_id = browser_logins.id ORDER BY client_id)
           AS sites
  FROM identities JOIN browser_logins USING (app_id, openid)
 WHERE user_id = :user_id ORDER BY authenticated_at, browser_logins.id
""")
_CONSENTS: Final = Statement[ExportedRow]("""
SELECT document, version, given_at, withdrawn_at, app_id, abbrev(ip) AS ip
  FROM consents WHERE user_id = ANY (:user_ids::uuid[]) ORDER BY given_at DESC, id DESC
""")

_EVENTS: Final = Statement[ExportedRow]("""
SELECT id, type, at, app_id,
       CASE WHEN type = 'user.banned' THEN data - 'reason' -- only for staff
            -- the user who was split off is another person
            WHEN type = 'user.split' THEN data - '{new_user_id,app_ids}'::text[]
            -- before 0.1.0, a split also gave former ids back, which now belong to another person
            WHEN type = 'user.merged' AND data ->> 'former_id' <> ALL (:user_ids::uuid[]::text[])
            THEN data - 'former_id'
            ELSE data END AS data,
       -- the id of another user is their data, unlike the names of clients, `system`, `operator` and `wechat`
       CASE WHEN is_by_another_user THEN 'administrator' ELSE actor END AS actor,
       CASE WHEN NOT is_by_another_user THEN abbrev(ip) END AS ip
  FROM (SELECT *, actor ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' AND actor <> ALL (:user_ids::uuid[]::text[])
                  AS is_by_another_user
          FROM events WHERE user_id = ANY (:user_ids::uuid[])) AS about_user
 ORDER BY id
""")
_REFUSALS: Final = Statement[ExportedRow]("""
SELECT at, code, wechat_errcode, app_id, network::text AS network, request_id, count
  FROM refusals WHERE user_id = ANY (:user_ids::uuid[]) ORDER BY id
""")
# translate() removes the line breaks that PostgreSQL writes into base64.
PICTURE: Final = Statement[ExportedRow](r"""
SELECT content_type, translate(encode(content, 'base64'), E'\n', '') AS content, created_at
  FROM avatars WHERE user_id = :user_id
""")


def lists_of(
    snapshot: Snapshot, user_id: UUID, former_ids: Sequence[UUID]
) -> Iterator[tuple[str, AsyncGenerator[Sequence[ExportedRow]]]]:
    """Yield the name of each list of the export, with the pages of its rows."""
    yield "identities", _pages(snapshot, _IDENTITIES, user_id=user_id)
    yield "sessions", _pages(snapshot, _SESSIONS, convert=_with_devices, user_id=user_id)
    yield "browsers", _pages(snapshot, _BROWSERS, user_id=user_id)
    # The rows of the following lists keep the id that the user had when they were stored, even after a merge.
    user_ids = [user_id, *former_ids]
    yield "consents", _pages(snapshot, _CONSENTS, user_ids=user_ids)
    yield "events", _pages(snapshot, _EVENTS, user_ids=user_ids)
    yield "refusals", _pages(snapshot, _REFUSALS, user_ids=user_ids)


async def _pages(
    snapshot: Snapshot,
    statement: Statement[ExportedRow],
    *,
    convert: Callable[[ExportedRow], ExportedRow] = dict,
    **arguments: object,
) -> AsyncGenerator[Sequence[ExportedRow]]:
    async for page in snapshot.pages(statement, PAGE_SIZE, **arguments):
        yield [convert(row) for row in page]


def _with_devices(row: Mapping[str, Any]) -> ExportedRow:
    session = dict(row)
    ip, user_agent = session.pop("opened_ip"), session.pop("opened_user_agent")
    opened = {"ip": ip, "device": describe_device(user_agent), "user_agent": user_agent}
    return {**session, "device": describe_device(session["user_agent"]), "opened": opened}
