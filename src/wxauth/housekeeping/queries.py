"""The sweeps of large tables, the limits on the sessions of an identity, and the metrics from the database.

A sweep goes through a table page by page, in the order of ids, which is the order of creation (UUIDv7), so it needs no
further index. An index on `expires_at`, which every refresh changes, would prevent heap-only updates.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, LiteralString
from uuid import UUID

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from wxauth.core.clock import FIRST_ID, LAST_ID, first_id_at
from wxauth.core.database import Database
from wxauth.core.models import TIME
from wxauth.core.statements import Nothing, Statement, fragment
from wxauth.login.count_queries import OPEN_SESSIONS_FRAGMENT
from wxauth.sessions.queries import CROWDED_USERS, DELETE_ENDED_SESSIONS, LAST_OF_PAGE, LastRow, end_replaced_sessions
from wxauth.settings.addresses import TRUNCATED

_REPLACEMENTS: Final = "replaced_sessions"
# A login usually stores its session within this time after creating the session's id. Nothing limits the whole login,
# but each of its transactions ends within `Deadlines.total`, and few are repeated. If a login takes even longer, its
# session is counted only after a later login of the identity. Younger logins wait for the next run, so that no login is
# read twice.
_ASSUMED_LOGIN_DURATION: Final = timedelta(seconds=60)


class SweepProgress(SQLModel, table=True):
    """The progress of a sweep, which any worker may continue."""

    __tablename__ = "sweeps"

    name: str = Field(sa_type=Text, primary_key=True)
    after: UUID  # the id after which the next page begins
    due_at: datetime = Field(sa_type=TIME)  # when the next page is due or, after the last page, the next sweep


# With 240,000 sessions, the planner read the whole table for each page, which took 40 ms. It also expects a user to
# have few sessions, and would read and sort a million of them, although the index contains them in order.
_READ_BY_INDEX: Final = Statement[str]("""
SELECT set_config(setting, 'off', true)
  FROM unnest(ARRAY['enable_seqscan', 'enable_sort', 'enable_bitmapscan']) AS given (setting)
""")

_PROGRESS: Final = Statement[tuple[UUID, datetime]]("SELECT after, due_at FROM sweeps WHERE name = :name")
_NOTE_PROGRESS: Final = Statement[Nothing]("""
INSERT INTO sweeps (name, after, due_at) VALUES (:name, :after, :due_at)
ON CONFLICT (name) DO UPDATE SET after = excluded.after, due_at = excluded.due_at
""")
_DELETE_SESSIONS: Final = Statement[Nothing]("""
DELETE FROM sessions WHERE id = ANY (ARRAY(
    SELECT id FROM sessions
     WHERE id > :after AND id <= :until AND (expires_at < :older_than OR revoked_at < :older_than)
       FOR UPDATE SKIP LOCKED))  -- so that there is no deadlock; the next sweep deletes these rows
""")
_TRY_LOCK: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext(:name))")
# A trigger refuses all other changes of events, because the audit trail must not be altered.
_ALLOW_SWEEP: Final = Statement[str]("SELECT set_config('wxauth.sweeping', 'on', true)")

# No later row is older than `since`, so a sweep ends with this page if `since` is not old enough.
_END_OF_EVENTS: Final = Statement[LastRow](
    "SELECT id, at AS since FROM events WHERE id > :after ORDER BY id OFFSET :skipped LIMIT 1"
)
# Imported consents may be older than their ids, so a sweep must continue to the last row.
_END_OF_CONSENTS: Final = Statement[LastRow](
    "SELECT id, 'epoch'::timestamptz AS since FROM consents WHERE id > :after ORDER BY id OFFSET :skipped LIMIT 1"
)
_DELETE_EVENTS: Final = Statement[Nothing]("""
DELETE FROM events
 -- other services must always be able to learn of merges, splits and erasures
 WHERE id > :after AND id <= :until AND at < :older_than AND type NOT IN ('user.erased', 'user.merged', 'user.split')
""")


def _prefix_length_fragment(address: LiteralString) -> LiteralString:
    return f"CASE family({address}) WHEN 4 THEN {fragment(str(TRUNCATED.v4))} ELSE {fragment(str(TRUNCATED.v6))} END"


def _network_fragment(address: LiteralString) -> LiteralString:
    return f"network(set_masklen({address}, {_prefix_length_fragment(address)}))"


_TRUNCATED_IP: Final = f"{_network_fragment('ip')}::inet"
_IS_IP_NOT_TRUNCATED: Final = f"masklen(ip) > {_prefix_length_fragment('ip')}"
_TRUNCATED_OPENED_IP: Final = f"{_network_fragment('opened_ip')}::inet"
_IS_OPENED_IP_NOT_TRUNCATED: Final = f"masklen(opened_ip) > {_prefix_length_fragment('opened_ip')}"
# The data of `scan.approved` contains the address of the browser. For other events, the expression is null.
_BROWSER_IP: Final = "(CASE type WHEN 'scan.approved' THEN data->>'browser_ip' END)::inet"
_IS_BROWSER_IP_NOT_TRUNCATED: Final = f"masklen({_BROWSER_IP}) > {_prefix_length_fragment(_BROWSER_IP)}"
_TRUNCATE_IN_EVENTS: Final = Statement[Nothing](f"""
UPDATE events
   SET ip = CASE WHEN {_IS_IP_NOT_TRUNCATED} THEN {_TRUNCATED_IP} ELSE ip END,
       data = CASE WHEN {_IS_BROWSER_IP_NOT_TRUNCATED}
                   THEN data || jsonb_build_object('browser_ip', {_network_fragment(_BROWSER_IP)}::text)
                   ELSE data END
 WHERE id > :after AND id <= :until AND at < :older_than AND ({_IS_IP_NOT_TRUNCATED} OR {_IS_BROWSER_IP_NOT_TRUNCATED})
""")
# `ip` is the address of the last refresh, and `opened_ip` is that of the login.
_TRUNCATE_IN_SESSIONS: Final = Statement[Nothing](f"""
UPDATE sessions
   SET ip = CASE WHEN last_used_at < :older_than AND {_IS_IP_NOT_TRUNCATED} THEN {_TRUNCATED_IP} ELSE ip END,
       opened_ip = CASE WHEN {_IS_OPENED_IP_NOT_TRUNCATED} THEN {_TRUNCATED_OPENED_IP} ELSE opened_ip END
 WHERE id = ANY (ARRAY(
     SELECT id FROM sessions
      WHERE id > :after AND id <= :until AND created_at < :older_than
        AND ((last_used_at < :older_than AND {_IS_IP_NOT_TRUNCATED}) OR {_IS_OPENED_IP_NOT_TRUNCATED})
        FOR UPDATE SKIP LOCKED))  -- so that there is no deadlock; the next sweep truncates these addresses
""")
_TRUNCATE_IN_CONSENTS: Final = Statement[Nothing](f"""
UPDATE consents SET ip = {_TRUNCATED_IP}
 WHERE id > :after AND id <= :until AND given_at < :older_than AND {_IS_IP_NOT_TRUNCATED}
""")


@dataclass(frozen=True, slots=True)
class TableSweep:
    name: str  # under which the progress is stored
    end_of_page: Statement[LastRow]  # returns no row if fewer rows are left than a page has
    work: Statement[Nothing]
    lock: str = "wxauth.keeping"  # of all sweeps with the same lock, only one processes a page at a time


# This sweep has its own lock, because it runs at the same time as the other sweeps.
ENDED_SESSIONS: Final = TableSweep("sessions", LAST_OF_PAGE, _DELETE_SESSIONS, lock="wxauth.housekeeping")
EVENTS: Final = TableSweep("events", _END_OF_EVENTS, _DELETE_EVENTS)
ADDRESSES: Final = (
    TableSweep("addresses_in_events", _END_OF_EVENTS, _TRUNCATE_IN_EVENTS),
    TableSweep("addresses_in_sessions", LAST_OF_PAGE, _TRUNCATE_IN_SESSIONS),
    TableSweep("addresses_in_consents", _END_OF_CONSENTS, _TRUNCATE_IN_CONSENTS),
)


@dataclass(frozen=True, slots=True)
class SweptPage:
    rows: int  # changed or deleted
    is_last: bool  # no later row can be old enough


async def restart_sweep(database: Database, name: str, *, now: datetime) -> None:
    """Make a sweep due now, from the first row on."""
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
    """Sweep the next page. Return None if another worker is processing a page, or if nothing is due yet."""
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
    ended: int
    deleted: int
    is_last: bool


async def replace_old_sessions(
    database: Database, *, max_open: int, max_stored: int, logins: int, size: int, now: datetime, pause: timedelta
) -> ReplacedPage | None:
    """End each identity's open sessions beyond `max_open`, and delete ended ones beyond `max_stored`, one page.

    The open sessions count towards `max_stored`, too. An expired session counts as open until something ends it. A page
    covers `logins` logins, checks the identities of those that are drawn, and changes at most `size` sessions in each
    of the two ways. The next run is due `pause` after the last page. Return None if another worker is processing a
    page, or if nothing is due yet.
    """
    async with database.begin(replan=True) as transaction:
        if not await transaction.value(_TRY_LOCK, name=f"wxauth.{_REPLACEMENTS}"):
            return None
        end_at = now - _ASSUMED_LOGIN_DURATION
        end = first_id_at(end_at)
        after, due_at = await transaction.row(_PROGRESS, name=_REPLACEMENTS) or (first_id_at(end_at - pause), now)
        if due_at > now:
            return None
        last = await transaction.row(LAST_OF_PAGE, after=after, skipped=logins - 1)
        until = end if last is None else min(last.id, end)
        await transaction.values(_READ_BY_INDEX)
        ended = deleted = 0
        at_most = min(max_open, max_stored)
        crowded = await transaction.values(CROWDED_USERS, after=after, until=until, at_most=at_most)
        if crowded:
            ended = await end_replaced_sessions(
                transaction, crowded, after=after, until=until, at_most=max_open, size=size, now=now
            )
            deleted = await transaction.run(
                DELETE_ENDED_SESSIONS, user_ids=crowded, after=after, until=until, at_most=max_stored, size=size
            )
        is_last = False
        if (
            max(ended, deleted) < size
        ):  # otherwise, more sessions may be left, so the next page begins after the same id
            is_last = until == end
            after, due_at = until, now + pause if is_last else due_at
        await transaction.run(_NOTE_PROGRESS, name=_REPLACEMENTS, after=after, due_at=due_at)
        return ReplacedPage(ended, deleted, is_last)


class Statistics(SQLModel):
    """The metrics that are read from the database. `wxauth_` and a field's name is the metric's name."""

    sessions: int = Field(description="Open sessions; an estimate if there are many.")
    webhook_oldest_pending_seconds: float = Field(
        description="Seconds since the oldest event that waits for its place in the feed was recorded, or since the "
        "oldest delivery that an enabled webhook has not accepted was queued; 0 if there is none."
    )
    erasures_waiting: int = Field(description="Erased users whose data is not completely removed yet.")
    sweep_overdue_seconds: float = Field(
        description="Seconds since the daily sweep that is most overdue was due; 0 if none is overdue."
    )
    signing_key_age_seconds: float | None = Field(description="Age of the current signing key.")


STATISTICS: Final = Statement[Statistics](f"""
SELECT ({OPEN_SESSIONS_FRAGMENT}) AS sessions,
       (SELECT count(*) FROM erasures) AS erasures_waiting,
       -- LEAST and GREATEST ignore nulls, so this is 0 without a row, or with a time in the future
       extract(epoch FROM GREATEST(:now - LEAST(
           (SELECT min(oldest.at) FROM webhooks w CROSS JOIN LATERAL (
                   SELECT at FROM deliveries d
                    WHERE d.receiver_id = w.id AND d.state = 'pending' ORDER BY d.id LIMIT 1) oldest
             WHERE w.is_enabled),
           (SELECT at FROM events WHERE id = (SELECT event_id FROM events_unplaced ORDER BY event_id LIMIT 1))),
       interval '0'))::float AS webhook_oldest_pending_seconds,
       -- :sweeps contains the names of the daily sweeps
       extract(epoch FROM GREATEST(:now - (SELECT min(due_at) FROM sweeps WHERE name = ANY (:sweeps)), interval '0'))
           ::float AS sweep_overdue_seconds,
       -- RS256 keys sign no access tokens
       extract(epoch FROM :now - (SELECT max(activates_at) FROM signing_keys
                                   WHERE alg = 'ES256' AND activates_at <= :now))::float AS signing_key_age_seconds
""")
