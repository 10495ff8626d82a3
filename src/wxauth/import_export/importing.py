"""The import of users. The lines are read and stored in batches, by the same rules as at a login.

A batch is one transaction. If an import is killed, an operator can run it again, with the same result as without the
interruption. A temporary file (`MadeOnDisk`) contains the data about earlier lines that later batches need.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from tempfile import gettempdir
from types import GenericAlias
from typing import Any, Final, NamedTuple, cast, get_args, get_type_hints
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from wxauth.apps.registry import Apps
from wxauth.core.database import Transaction
from wxauth.core.outages import CONFLICTS, is_refusal
from wxauth.core.retrying import ChangedMeanwhile, TooManyChanges, retrying
from wxauth.core.services import Services
from wxauth.core.trail import OPERATOR
from wxauth.errors import StorageUnavailable
from wxauth.import_export.batch import AdministratorsNotLocked, Batch, LineOutcome, LineRefused
from wxauth.import_export.lines import SKIPPABLE, Fault, Line, unwrapped, without
from wxauth.import_export.numbered_lines import NumberedLine
from wxauth.import_export.options import Options
from wxauth.import_export.queries import LOCK, LOCK_WITH_ADMINISTRATORS, UserToImport, Wanted, find
from wxauth.import_export.rules import Made
from wxauth.users.erasure_queries import ARE_WAITING, erase_waiting_rows
from wxauth.users.status_queries import ADMIN, StatusAndRoles

BATCH: Final = 1000
"""The largest number of lines per transaction. Logins of the same users wait until the transaction ends."""
USUAL_OPENID_LENGTH: Final = 28
"""The length of WeChat's openids at present, in characters. WeChat does not guarantee this length."""
_PAUSES: Final = (1, 2, 4, 8, 15, *[30] * 19)
"""The pauses, in seconds, before the successive retries of a batch.

Together, the pauses last ten minutes, which is longer than a failover or a restart of the database.
"""
_CACHE_KIB: Final = 8192
"""The size limit of SQLite's cache in memory, in KiB."""


class ImportRefusal(NamedTuple):
    """The refusal of a line, or of some of its fields, with the faults."""

    number: int
    faults: Sequence[Fault]
    others: Sequence[int] = ()
    """The numbers of the other lines that the refused line might contradict."""
    skips_only_fields: bool = False
    """Whether the line is imported without the fields that have these faults."""


@dataclass(slots=True)
class Counts:
    """The numbers of lines by outcome. The header of CSV is not counted."""

    joined: int = 0
    """The number of updated lines that joined a user only by external_id.

    This count comes first in the JSON output, because a high number reveals mistakes such as a wrong column of external
    ids.
    """
    lines: int = 0
    """The number of all lines, including blank lines."""
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    incomplete: int = 0
    """The number of lines that were imported without their invalid fields."""
    blank: int = 0
    odd_openids: int = field(default=0, compare=False)
    """The number of readable lines whose openid does not have the length `USUAL_OPENID_LENGTH`.

    Comparisons of counts ignore this number, because it leads only to a warning.
    """

    def add(self, outcome: LineOutcome) -> None:
        """Count a line with this outcome. The values of `LineOutcome` are names of fields of this class."""
        self.lines += 1
        setattr(self, outcome, getattr(self, outcome) + 1)
        if outcome is LineOutcome.JOINED:
            self.updated += 1


_ENTRY_PARSERS: Final[dict[str, TypeAdapter[tuple[Any, Any]]]] = {
    kind: TypeAdapter(cast("Any", GenericAlias(tuple, get_args(hint)))) for kind, hint in get_type_hints(Made).items()
}
"""The parsers of the entries in each dict of `Made`, by the name of the dict.

For a `dict[UUID, int]`, for example, the parser reads a `tuple[UUID, int]`, which is a key and its value.
"""


class MadeOnDisk:
    """The data about earlier lines, in a temporary file, because the data may be larger than the memory.

    If no folder for temporary files is writable, the data is in memory.

    The data also includes the unionids of the whole file. In a dry run, it includes all changes that the lines have
    made so far. Otherwise, the database contains these changes.

    Each row is an entry of one of the dicts of `Made`: the name of the dict (`kind`), the key (`name`) and the value.
    A method that writes rows writes all of them in one SQLite transaction, because separate transactions would take
    longer.
    """

    def __init__(self) -> None:
        file = ""  # a temporary file, which SQLite deletes when the connection is closed
        try:
            gettempdir()
        except FileNotFoundError:  # no folder for temporary files is writable
            file = ":memory:"
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")  # a negative number is a size in KiB
        self._connection.execute("PRAGMA journal_mode = OFF")  # nothing is ever rolled back
        self._connection.execute("CREATE TABLE made (kind, name, value, PRIMARY KEY (kind, name)) WITHOUT ROWID")

    def close(self) -> None:
        """Close the database, which deletes its temporary file.

        SQLite accepts this call only from the thread that created the object.
        """
        self._connection.close()

    def changes_for(self, wanted: Wanted, users: Iterable[UserToImport], *, with_administrators: bool) -> Made:
        """Return the data about earlier lines that concerns the ids in a batch, or these stored users.

        With `with_administrators`, the result also contains all administrators whom a dry run has noted.
        """
        made = Made(
            given=self._entries("given", wanted.identities),
            identities=self._entries("identities", wanted.identities),
            openids=self._entries("openids", wanted.unionids),
            unionids=self._entries("unionids", [unionid for _, unionid in wanted.unionids]),
            external_ids=self._entries("external_ids", wanted.external_ids),
            former_ids=self._entries("former_ids", wanted.ids),
            unionid_lines=self._entries("unionid_lines", [key.openid for key in wanted.identities]),
        )
        ids = {user.id for user in users}.union(wanted.ids, made.unionids.values(), made.external_ids.values())
        ids.update(identity.user_id for identity in made.identities.values())
        for kind in ("users", "first_lines", "apps_of_users", "consents"):
            setattr(made, kind, self._entries(kind, ids))
        if with_administrators:
            made.users |= self._administrators()
        return made

    def note_unionids(self, lines: Iterable[NumberedLine]) -> None:
        """Store each unionid of the file with the number of its first line.

        The rule `UNIONID_AS_OPENID` needs them, because a line must not use a unionid of the file as its openid.
        """
        rows = (("unionid_lines", _json(unionid), _json(number)) for number, unionid in _unionids_in(lines))
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR IGNORE INTO made VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def keep(self, made: Made) -> None:
        """Store the data of a batch in place of the data that `changes_for` has returned for the batch."""
        self._connection.execute("BEGIN")
        for kind in _ENTRY_PARSERS:
            rows = ((kind, _json(key), _json(value)) for key, value in getattr(made, kind).items())
            self._connection.executemany("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def _administrators(self) -> dict[UUID, UserToImport]:
        """Return the stored users who are administrators, by id."""
        # Not every user whose values contain the text is an administrator, but few others do.
        rows = self._connection.execute(
            "SELECT name, value FROM made WHERE kind = 'users' AND value LIKE ?", (f'%"{ADMIN}"%',)
        )
        users = _parsed("users", rows)
        return {user_id: user for user_id, user in users.items() if StatusAndRoles.of(user).is_administrator}

    def _entries(self, kind: str, keys: Iterable[object]) -> dict[Any, Any]:
        """Return the entries with these keys that are stored for the dict `kind` of `Made`."""
        # The keys are a single parameter, because SQLite limits the number of a statement's parameters.
        select = "SELECT name, value FROM made WHERE kind = ? AND name IN (SELECT value FROM json_each(?))"
        return _parsed(kind, self._connection.execute(select, (kind, _json([_json(key) for key in keys]))))


def _parsed(kind: str, rows: Iterable[tuple[str, str]]) -> dict[Any, Any]:
    """Return entries for the dict `kind` of `Made`. Each row contains the key and the value as JSON."""
    return dict(_ENTRY_PARSERS[kind].validate_json(f"[{name},{value}]") for name, value in rows)


class _ReadLine(NamedTuple):
    """A line of the file after it was read."""

    number: int
    line: Line | None
    """None if the line is blank or refused."""
    faults: Sequence[Fault]
    """The faults of the line. If `line` is not None, its fields with these faults are null."""


async def import_users(
    services: Services,
    lines: Iterable[NumberedLine],
    options: Options,
    *,
    report: Callable[[ImportRefusal], None],
    progress: Callable[[Counts], None],
    waiting: Callable[[StorageUnavailable, float], None],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Counts:
    """Import lines of JSON under the same rules as a login, and return the counts of the whole file.

    The lines are read twice. The first reading collects the unionids of the whole file, because the check of
    each line's openid needs them. Errors of the first reading are raised before anything is stored.

    Args:
        services: The parts of the service.
        lines: The lines, which can be iterated over twice.
        options: The options of the import.
        report: A function that is called for each line that is refused, or is imported without its invalid fields, in
            the order of the lines.
        progress: A function that is called after each batch with the counts so far.
        waiting: A function that is called if the database did not accept a batch, with the reason, and with the number
            of seconds until the retry.
        pause: A function that waits for a number of seconds before a retry.

    Raises: StorageUnavailable, if the database does not accept a batch even after all retries (see `_PAUSES`), if a
        retry cannot help, if the apps cannot be read, or if the secrets of an app in the lines cannot be decrypted; the
        errors of `lines`, for example WrongFile. The stored batches are not undone, and the same lines can be imported
        again.
    """
    counts = Counts()
    await services[Apps].refresh()
    parts = {**services.parts, ZoneInfo: options.time_zone}  # the context of `Line.read`
    with closing(MadeOnDisk()) as earlier:
        earlier.note_unionids(lines)
        remaining = iter(lines)
        while numbered_lines := list(islice(remaining, BATCH)):
            read_lines = [_read(numbered, parts, options) for numbered in numbered_lines]
            readable = [(number, line) for number, line, _faults in read_lines if line is not None]
            outcomes = await _import_patiently(services, readable, earlier, options, waiting=waiting, pause=pause)
            _count(read_lines, outcomes, counts, report)
            progress(counts)
    return counts


async def _import_patiently(
    services: Services,
    lines: Sequence[tuple[int, Line]],
    earlier: MadeOnDisk,
    options: Options,
    *,
    waiting: Callable[[StorageUnavailable, float], None],
    pause: Callable[[float], Awaitable[None]],
) -> list[LineOutcome | LineRefused]:
    """Import a batch, and return the result of each line.

    If the database is unavailable, or if `_import_or_halve` cannot import even a single line because other requests
    keep changing its user (TooManyChanges, a StorageUnavailable), retry after a pause. Each such failure halves the
    number of lines per attempt for the rest of the batch.

    Raises: StorageUnavailable, after the last of `_PAUSES`, or if a retry cannot help.
    """
    outcomes: list[LineOutcome | LineRefused] = []
    size = BATCH
    pauses = iter(_PAUSES)
    while remaining := lines[len(outcomes) :]:
        try:
            await _import_or_halve(services, remaining[:size], earlier, options, outcomes)
        except StorageUnavailable as exc:
            seconds = next(pauses, None)
            if seconds is None or is_refusal(exc):
                raise
            waiting(exc, seconds)
            await pause(seconds)
            # The batch might have exceeded its time limit.
            size = max(min(size, len(remaining)) // 2, 1)
    return outcomes


def _count(
    read_lines: Sequence[_ReadLine],
    outcomes: Sequence[LineOutcome | LineRefused],
    counts: Counts,
    report: Callable[[ImportRefusal], None],
) -> None:
    """Add the lines of a batch to the counts, and call `report` for the refused lines and fields.

    `outcomes` contains one outcome for each line that could be read.
    """
    remaining_outcomes = iter(outcomes)
    for number, line, faults in read_lines:
        if line is None:
            counts.add(LineOutcome.REFUSED if faults else LineOutcome.BLANK)
            if faults:
                report(ImportRefusal(number, faults))
            continue
        outcome = next(remaining_outcomes)
        if isinstance(outcome, LineRefused):
            counts.add(LineOutcome.REFUSED)
            report(ImportRefusal(number, [*faults, *outcome.faults], outcome.others))
        else:
            counts.add(outcome)
            if faults:
                counts.incomplete += 1
                report(ImportRefusal(number, faults, skips_only_fields=True))
        if line.openid is not None and len(line.openid) != USUAL_OPENID_LENGTH:
            counts.odd_openids += 1


def _read(numbered: NumberedLine, parts: Mapping[type, Any], options: Options) -> _ReadLine:
    """Parse a line and check its fields. Replace invalid fields with null if the options allow this.

    If a field that is not `SKIPPABLE` is invalid, the whole line is refused.
    """
    number, text = numbered
    if text is None:
        return _ReadLine(number, None, ())
    if isinstance(text, Fault):
        return _ReadLine(number, None, [text])
    line_or_faults = Line.read(text, parts)
    if isinstance(line_or_faults, Line):
        return _ReadLine(number, line_or_faults, ())
    faults = line_or_faults
    fields = {fault.field for fault in faults}
    if not options.skips_bad_fields or not fields <= SKIPPABLE:
        return _ReadLine(number, None, faults)
    line_or_faults = Line.read(without(text, fields), parts)
    if isinstance(line_or_faults, Line):
        return _ReadLine(number, line_or_faults, faults)
    return _ReadLine(number, None, line_or_faults)


async def _import_or_halve(
    services: Services,
    lines: Sequence[tuple[int, Line]],
    earlier: MadeOnDisk,
    options: Options,
    outcomes: list[LineOutcome | LineRefused],
) -> None:
    """Import a batch, and add the result of each line to `outcomes`.

    If other requests keep changing the same users, import the two halves of the batch separately.

    After an error, `outcomes` contains the results of the lines that are stored.

    Raises: TooManyChanges, if a single line cannot be imported either; StorageUnavailable.
    """
    try:
        outcomes += await _import_batch(services, lines, earlier, options)
    except TooManyChanges:
        if len(lines) == 1:
            raise
        # A smaller batch takes less time, so fewer requests change its users in the meantime.
        middle = len(lines) // 2
        await _import_or_halve(services, lines[:middle], earlier, options, outcomes)
        await _import_or_halve(services, lines[middle:], earlier, options, outcomes)


@retrying(3, detail="too many concurrent changes to these users", conflicts=CONFLICTS)
async def _import_batch(
    services: Services,
    lines: Sequence[tuple[int, Line]],
    earlier: MadeOnDisk,
    options: Options,
    *,
    with_administrators: bool = False,
) -> list[LineOutcome | LineRefused]:
    """Import a batch in one transaction, and return the result of each line. In a dry run, store nothing.

    If a line would remove an administrator, begin again with all administrators locked.

    Raises: TooManyChanges, after three attempts (the caller then imports smaller batches); StorageUnavailable.
    """
    wanted = _wanted([line for _, line in lines])
    if not options.dry_run:  # the remaining data of an erased user must not become data of a new user with this id
        await erase_waiting_rows(services.database, wanted.ids)
    try:
        # An import can fill empty tables. With `replan`, PostgreSQL does not use a plan from a time when a table was
        # empty.
        async with services.database.begin(replan=True) as transaction:
            batch = await _locked_batch(
                transaction, wanted, earlier, options, with_administrators=with_administrators, now=services.clock()
            )
            outcomes = [_outcome(batch, number, line) for number, line in lines]
            changes = [] if options.dry_run else await batch.store(transaction)
    except AdministratorsNotLocked:
        return await _import_batch(services, lines, earlier, options, with_administrators=True)
    # These steps run after the commit, because an attempt that fails must neither keep nor log its changes. Unless this
    # is a dry run, later batches find all changes except `given` and `first_lines` in the database.
    made = batch.made
    earlier.keep(made if options.dry_run else Made(given=made.given, first_lines=made.first_lines))
    for change in changes:
        change.report(by=OPERATOR)
    return outcomes


async def _locked_batch(
    transaction: Transaction,
    wanted: Wanted,
    earlier: MadeOnDisk,
    options: Options,
    *,
    with_administrators: bool,
    now: datetime,
) -> Batch:
    """Lock the users of the lines, and return the batch that will change them.

    Raises: ChangedMeanwhile, if ids of the lines have moved to other users before the lock, or if one of the users was
        just erased.
    """
    found = await find(transaction, wanted)
    users: Sequence[UserToImport] = []
    if found.user_ids:
        # Both statements lock users in the order of their ids, as all code does, to avoid deadlocks.
        statement = LOCK_WITH_ADMINISTRATORS if with_administrators else LOCK
        users = await transaction.rows(statement, user_ids=list(found.user_ids))
        # Other transactions may have changed the data before this transaction got the locks.
        found = await find(transaction, wanted, users)
        if not found.user_ids <= {user.id for user in users}:
            raise ChangedMeanwhile
    if not options.dry_run and await transaction.value(ARE_WAITING, user_ids=wanted.ids):
        raise ChangedMeanwhile  # a user has just been erased
    made = earlier.changes_for(wanted, users, with_administrators=with_administrators)
    return Batch(found, has_all_admins=with_administrators, made=made, options=options, now=now)


def _outcome(batch: Batch, number: int, line: Line) -> LineOutcome | LineRefused:
    """Apply a line to the batch, and return the outcome or the refusal."""
    try:
        return batch.apply(number, line)
    except LineRefused as exc:
        return exc


def _wanted(lines: Sequence[Line]) -> Wanted:
    """Return the identities, ids and phone numbers that these lines contain, each once."""
    external_ids: set[str] = set()
    ids: set[UUID] = set()
    for line in lines:
        if line.external_id is not None:
            external_ids.add(line.external_id)
        external_ids.update(line.former_external_ids)
        if line.user_id is not None:
            ids.add(line.user_id)
        ids.update(line.former_ids)
    return Wanted(
        identities=list({line.key for line in lines}),
        unionids=list({(line.key.app_id, line.unionid) for line in lines if line.unionid is not None}),
        external_ids=list(external_ids),
        ids=list(ids),
        phones=list({line.phone for line in lines if line.phone is not None}),
    )


def _unionids_in(lines: Iterable[NumberedLine]) -> Iterator[tuple[int, str]]:
    """Yield each unionid in the lines, with the number of its line. Skip blank lines and lines that cannot be read."""
    for number, text in lines:
        # Lines without unionids need not be parsed here.
        if isinstance(text, bytes) and b'"unionid"' in text:
            try:
                values = from_json(text)
            except ValueError:  # the second reading refuses a line that is not JSON
                continue
            unionid = unwrapped(values.get("unionid")) if isinstance(values, dict) else None
            if isinstance(unionid, str):
                yield number, unionid


def _json(value: object) -> str:
    return to_json(value).decode()
