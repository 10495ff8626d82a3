"""The sweeps of large tables, and the limits on the sessions of an identity.

A sweep processes one page of rows at a time, in the order of their ids. It deletes the old rows of one table, or
truncates the addresses in them. Any worker may sweep the next page. Ids are UUIDv7, so their order is the order of
creation, and the sweeps need no additional index. There is no index on `expires_at`, because every refresh changes this
column, and an index would prevent heap-only updates.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, LiteralString
from uuid import UUID

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from wxauth.core.database import Database
from wxauth.core.ids import FIRST_ID, LAST_ID, first_id_at
from wxauth.core.models import TIME
from wxauth.core.statements import Nothing, Statement, fragment
from wxauth.sessions.queries import DELETE_ENDED_SESSIONS, LAST_OF_PAGE, LastRow, end_replaced_sessions
from wxauth.settings.addresses import TRUNCATED

_REPLACING: Final = "replaced_sessions"
"""The name under which `replace_old_sessions` stores its progress."""
_OVERLAP: Final = timedelta(seconds=60)
"""The longest time from the creation of a session's id to the end of the login that stores the session."""


class SweepProgress(SQLModel, table=True):
    """The progress of a sweep. Any worker may continue the sweep."""

    __tablename__ = "sweeps"

    name: str = Field(sa_type=Text, primary_key=True)
    after: UUID
    """The id after which the next page begins.

    `replace_old_sessions` uses the same id for all pages of a run. It checks the identities that have a session with a
    higher id.
    """
    due_at: datetime = Field(sa_type=TIME)
    """The time at which the next page is due or, after the last page, the time at which the next sweep is due."""


# These settings keep the planner from sorting. The planner expects a user to have few sessions. For a user with a
# million sessions, it would otherwise read and sort all of them for each page, although the index contains them in
# order.
_READ_IN_ORDER: Final = Statement[str](
    "SELECT set_config(setting, 'off', true) FROM unnest(ARRAY['enable_sort', 'enable_bitmapscan']) AS given (setting)"
)
# This query returns the progress of a sweep. Before the first page of the first sweep, there is no row.
_PROGRESS: Final = Statement[tuple[UUID, datetime]]("SELECT after, due_at FROM sweeps WHERE name = :name")
_NOTE_PROGRESS: Final = Statement[Nothing]("""
INSERT INTO sweeps (name, after, due_at) VALUES (:name, :after, :due_at)
ON CONFLICT (name) DO UPDATE SET after = excluded.after, due_at = excluded.due_at
""")
# The statement skips locked rows, so that it waits for no other transaction and cannot deadlock. The next sweep deletes
# the skipped rows.
_DELETE_SESSIONS: Final = Statement[Nothing]("""
DELETE FROM sessions WHERE id = ANY (ARRAY(
    SELECT id FROM sessions
     WHERE id > :after AND id <= :until AND (expires_at < :older_than OR revoked_at < :older_than)
       FOR UPDATE SKIP LOCKED))
""")
_TRY_LOCK: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext(:name))")
# With this setting, a trigger allows a sweep to change events. Otherwise, the trigger refuses changes, because the
# audit trail must not be altered.
_ALLOW_SWEEP: Final = Statement[str]("SELECT set_config('wxauth.sweeping', 'on', true)")

# This statement finds the last row of a page of events. `_END_OF_CONSENTS` and `LAST_OF_PAGE` do so for other tables.
# No later row is older than `since`, so a sweep ends with this page if `since` is not old enough.
_END_OF_EVENTS: Final = Statement[LastRow](
    "SELECT id, at AS since FROM events WHERE id > :after ORDER BY id OFFSET :skipped LIMIT 1"
)
# Imported consents may be older than their ids. Therefore, `since` is a time in the distant past, so that a sweep of
# consents always continues to the last row.
_END_OF_CONSENTS: Final = Statement[LastRow](
    "SELECT id, 'epoch'::timestamptz AS since FROM consents WHERE id > :after ORDER BY id OFFSET :skipped LIMIT 1"
)
# The statement leaves out merges, splits and erasures, so that other services can always learn of them.
_DELETE_EVENTS: Final = Statement[Nothing]("""
DELETE FROM events
 WHERE id > :after AND id <= :until AND at < :older_than AND type NOT IN ('user.erased', 'user.merged', 'user.split')
""")


def _prefix_length(address: LiteralString) -> LiteralString:
    """Return an SQL expression for the prefix length of the network to which an address is truncated."""
    return f"CASE family({address}) WHEN 4 THEN {fragment(str(TRUNCATED.v4))} ELSE {fragment(str(TRUNCATED.v6))} END"


def _network(address: LiteralString) -> LiteralString:
    """Return an SQL expression for the network to which an address is truncated."""
    return f"network(set_masklen({address}, {_prefix_length(address)}))"


_TRUNCATED_IP: Final = f"{_network('ip')}::inet"
_IS_IP_NOT_TRUNCATED: Final = f"masklen(ip) > {_prefix_length('ip')}"
_TRUNCATED_OPENED_IP: Final = f"{_network('opened_ip')}::inet"
_IS_OPENED_IP_NOT_TRUNCATED: Final = f"masklen(opened_ip) > {_prefix_length('opened_ip')}"
# The data of `scan.approved` contains the address of the browser. For other events, the expression is null.
_BROWSER_IP: Final = "(CASE type WHEN 'scan.approved' THEN data->>'browser_ip' END)::inet"
_IS_BROWSER_IP_NOT_TRUNCATED: Final = f"masklen({_BROWSER_IP}) > {_prefix_length(_BROWSER_IP)}"
_TRUNCATE_IN_EVENTS: Final = Statement[Nothing](f"""
UPDATE events
   SET ip = CASE WHEN {_IS_IP_NOT_TRUNCATED} THEN {_TRUNCATED_IP} ELSE ip END,
       data = CASE WHEN {_IS_BROWSER_IP_NOT_TRUNCATED}
                   THEN data || jsonb_build_object('browser_ip', {_network(_BROWSER_IP)}::text)
                   ELSE data END
 WHERE id > :after AND id <= :until AND at < :older_than AND ({_IS_IP_NOT_TRUNCATED} OR {_IS_BROWSER_IP_NOT_TRUNCATED})
""")
# `ip` is the address at the login or at the last refresh, and `opened_ip` is the address at the login. Therefore, `ip`
# is old if the session was last used long ago, and `opened_ip` is old if the session was opened long ago.
#
# The statement skips locked rows, because a sweep that waits for locks could deadlock. The next sweep truncates the
# addresses in the skipped rows.
_TRUNCATE_IN_SESSIONS: Final = Statement[Nothing](f"""
UPDATE sessions
   SET ip = CASE WHEN last_used_at < :older_than AND {_IS_IP_NOT_TRUNCATED} THEN {_TRUNCATED_IP} ELSE ip END,
       opened_ip = CASE WHEN {_IS_OPENED_IP_NOT_TRUNCATED} THEN {_TRUNCATED_OPENED_IP} ELSE opened_ip END
 WHERE id = ANY (ARRAY(
     SELECT id FROM sessions
      WHERE id > :after AND id <= :until AND created_at < :older_than
        AND ((last_used_at < :older_than AND {_IS_IP_NOT_TRUNCATED}) OR {_IS_OPENED_IP_NOT_TRUNCATED})
        FOR UPDATE SKIP LOCKED))
""")
_TRUNCATE_IN_CONSENTS: Final = Statement[Nothing](f"""
UPDATE consents SET ip = {_TRUNCATED_IP}
 WHERE id > :after AND id <= :until AND given_at < :older_than AND {_IS_IP_NOT_TRUNCATED}
""")


@dataclass(frozen=True, slots=True)
class TableSweep:
    """A sweep of one table, in pages."""

    name: str
    """The name under which the sweep stores its progress."""
    end_of_page: Statement[LastRow]
    """The query for the last row of a page. It returns no row if fewer rows are left than a page has."""
    work: Statement[Nothing]
    """The statement that deletes or changes the old rows of a page."""
    lock: str = "wxauth.keeping"
    """The name of a lock. Of all sweeps that share a lock, only one processes a page at a time.

    The sweep of ended sessions has a separate lock, because it runs at the same time as the other sweeps.
    """


ENDED_SESSIONS: Final = TableSweep("sessions", LAST_OF_PAGE, _DELETE_SESSIONS, lock="wxauth.housekeeping")
EVENTS: Final = TableSweep("events", _END_OF_EVENTS, _DELETE_EVENTS)
ADDRESSES: Final = (
    TableSweep("addresses_in_events", _END_OF_EVENTS, _TRUNCATE_IN_EVENTS),
    TableSweep("addresses_in_sessions", LAST_OF_PAGE, _TRUNCATE_IN_SESSIONS),
    TableSweep("addresses_in_consents", _END_OF_CONSENTS, _TRUNCATE_IN_CONSENTS),
)


@dataclass(frozen=True, slots=True)
class SweptPage:
    """The result of sweeping one page."""

    rows: int
    """The number of rows that were changed or deleted."""
    is_last: bool
    """Whether this was the last page of the sweep, after which no row can be old enough."""


async def restart_sweep(database: Database, name: str, *, now: datetime) -> None:
    """Make the sweep with this name due now, and make it begin again with the first row."""
    async with database.begin() as transaction:
        await transaction.run(_NOTE_PROGRESS, name=name, after=FIRST_ID, due_at=now)


async def sweep_page(
    database: Database,
    table_sweep: TableSweep,
    *,
    size: int,
    older_than: datetime,
    now: datetime,
    next_sweep_at: datetime,
) -> SweptPage | None:
    """Sweep the next page of a table, up to `size` rows, store the progress, and return the result.

    The sweep deletes only sessions that ended, and events that were recorded, before `older_than`. It truncates only
    addresses from before this time. After the last page, the next sweep is due at `next_sweep_at`. Return None if
    another worker is processing a page, or if nothing is due yet.
    """
    # With `replan`, PostgreSQL does not use a plan from a time when the table was small.
    async with database.begin(replan=True) as transaction:
        if not await transaction.value(_TRY_LOCK, name=table_sweep.lock):
            return None
        after, due_at = await transaction.row(_PROGRESS, name=table_sweep.name) or (FIRST_ID, now)
        if due_at > now:
            return None
        last = await transaction.row(table_sweep.end_of_page, after=after, skipped=size - 1)
        until = LAST_ID if last is None else last.id
        await transaction.value(_ALLOW_SWEEP)
        rows = await transaction.run(table_sweep.work, after=after, until=until, older_than=older_than)
        is_last = last is None or last.since >= older_than
        if is_last:
            await transaction.run(_NOTE_PROGRESS, name=table_sweep.name, after=FIRST_ID, due_at=next_sweep_at)
        else:
            await transaction.run(_NOTE_PROGRESS, name=table_sweep.name, after=until, due_at=due_at)
        return SweptPage(rows, is_last)


@dataclass(frozen=True, slots=True)
class ReplacedPage:
    """The result of one page of `replace_old_sessions`."""

    ended: int
    """The number of sessions that were ended."""
    deleted: int
    """The number of ended sessions that were deleted."""
    is_last: bool
    """Whether this was the last page of the run, which has fewer than `size` sessions of each kind."""


async def replace_old_sessions(
    database: Database, *, max_open: int, max_stored: int, size: int, now: datetime, pause: timedelta
) -> ReplacedPage | None:
    """End a page of open sessions, and delete a page of ended sessions, beyond the limits per identity.

    An open session ends unless it is among the `max_open` newest open sessions of its identity. An ended session is
    deleted unless it is among the `max_stored` newest sessions of its identity, both open and ended. A page has up to
    `size` sessions of each kind. An expired session counts as open until something ends it.

    Each run checks only identities with which a user has logged in since a minute before the end of the previous run.
    The first run checks the logins of the last `pause`. The next run is due when `pause` has passed since the last
    page.

    Return None if another worker is processing a page, or if the next run is not due yet.
    """
    async with database.begin(replan=True) as transaction:
        if not await transaction.value(_TRY_LOCK, name=f"wxauth.{_REPLACING}"):
            return None
        after_id, due_at = await transaction.row(_PROGRESS, name=_REPLACING) or (first_id_at(now - pause), now)
        if due_at > now:
            return None
        await transaction.values(_READ_IN_ORDER)
        ended = await end_replaced_sessions(transaction, after_id=after_id, at_most=max_open, size=size, now=now)
        deleted = await transaction.run(DELETE_ENDED_SESSIONS, after_id=after_id, at_most=max_stored, size=size)
        is_last = max(ended, deleted) < size
        if is_last:
            # The next run begins with the logins of a minute ago, to include logins that are in progress now.
            after_id = first_id_at(now - _OVERLAP)
            due_at = now + pause
        await transaction.run(_NOTE_PROGRESS, name=_REPLACING, after=after_id, due_at=due_at)
        return ReplacedPage(ended, deleted, is_last)
