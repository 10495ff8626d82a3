"""The import of users. The lines are read and stored in batches, by the same rules as at a login.

A batch is one transaction. If an import is killed, an operator can run it again, with the same result as without the
interruption. A temporary file (`NotesOnDisk`) contains the notes about earlier lines that later batches need.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from wxauth.apps.registry import Apps
from wxauth.core.database import Transaction
from wxauth.core.database_errors import CONFLICTS
from wxauth.core.outages import is_refusal
from wxauth.core.retrying import ChangedMeanwhile, TooManyChanges, retrying
from wxauth.core.services import Services
from wxauth.core.trail import OPERATOR
from wxauth.errors import StorageUnavailable
from wxauth.import_export.batch import AdministratorsNotLocked, Batch, LineOutcome, LineRefused
from wxauth.import_export.lines import SKIPPABLE, Fault, Line, without
from wxauth.import_export.notes import Notes, NotesOnDisk
from wxauth.import_export.numbered_lines import NumberedLine
from wxauth.import_export.options import Options
from wxauth.import_export.queries import LOCK, LOCK_WITH_ADMINISTRATORS, UserToImport, Wanted, find
from wxauth.users.erasure_queries import ARE_WAITING, erase_waiting_rows

BATCH: Final = 1000
"""The largest number of lines per transaction. Logins of the same users wait until the transaction ends."""
USUAL_OPENID_LENGTH: Final = 28
"""The length of WeChat's openids at present, in characters. WeChat does not guarantee this length."""
_PAUSES: Final = (1, 2, 4, 8, 15, *[30] * 19)
"""The pauses, in seconds, before the successive retries of a batch.

Together, the pauses last ten minutes, which is longer than a failover or a restart of the database.
"""


class ImportRefusal(NamedTuple):
    """The refusal of a line, or of some of its fields, with the faults."""

    number: int
    faults: Sequence[Fault]
    other_lines: Sequence[int] = ()
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
    report_refusal: Callable[[ImportRefusal], None],
    report_progress: Callable[[Counts], None],
    report_wait: Callable[[StorageUnavailable, float], None],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Counts:
    """Import lines of JSON under the same rules as a login, and return the counts of the whole file.

    The lines are read twice. The first reading collects the unionids of the whole file, because the check of
    each line's openid needs them. Errors of the first reading are raised before anything is stored.

    Args:
        services: The parts of the service.
        lines: The lines, which can be iterated over twice.
        options: The options of the import.
        report_refusal: A function that is called for each line that is refused, or is imported without its invalid
            fields, in the order of the lines.
        report_progress: A function that is called after each batch with the counts so far.
        report_wait: A function that is called if the database did not accept a batch, with the reason, and with the
            number of seconds until the retry.
        pause: A function that waits for a number of seconds before a retry.

    Raises: StorageUnavailable, if the database does not accept a batch even after all retries (see `_PAUSES`), if a
        retry cannot help, if the apps cannot be read, or if the secrets of an app in the lines cannot be decrypted; the
        errors of `lines`, for example WrongFile. The stored batches are not undone, and the same lines can be imported
        again.
    """
    counts = Counts()
    await services[Apps].refresh()
    parts = {**services.parts, ZoneInfo: options.time_zone}  # the context of `Line.read`
    with closing(NotesOnDisk()) as notes_on_disk:
        notes_on_disk.add_unionids(lines)
        remaining = iter(lines)
        while numbered_lines := list(islice(remaining, BATCH)):
            read_lines = [_read(numbered, parts, options) for numbered in numbered_lines]
            readable = [(number, line) for number, line, _faults in read_lines if line is not None]
            outcomes = await _import_patiently(
                services, readable, notes_on_disk, options, report_wait=report_wait, pause=pause
            )
            _count_and_report(read_lines, outcomes, counts, report_refusal)
            report_progress(counts)
    return counts


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


async def _import_patiently(
    services: Services,
    lines: Sequence[tuple[int, Line]],
    notes_on_disk: NotesOnDisk,
    options: Options,
    *,
    report_wait: Callable[[StorageUnavailable, float], None],
    pause: Callable[[float], Awaitable[None]],
) -> list[LineOutcome | LineRefused]:
    """Import lines as one batch or, after failures, as several smaller batches. Return the result of each line.

    If other requests keep changing the users of a batch, each half becomes a batch. A smaller batch takes less time, so
    fewer requests change its users in the meantime. If other requests keep changing the user of a single line, or if
    the database is unavailable, the next attempt begins after a pause. An unavailable database also halves all
    remaining batches, because they might exceed the time limit.

    Raises: StorageUnavailable, after the last of `_PAUSES`, or if a retry cannot help.
    """
    outcomes: list[LineOutcome | LineRefused] = []
    batches = [lines] if lines else []
    pauses = iter(_PAUSES)
    while batches:
        next_batch, *later_batches = batches
        try:
            outcomes += await _import_batch(services, next_batch, notes_on_disk, options)
            batches = later_batches
        except StorageUnavailable as exc:
            if isinstance(exc, TooManyChanges):
                batches = [*_halves(next_batch), *later_batches]
                if len(next_batch) > 1:
                    continue
            else:
                batches = [half for batch in batches for half in _halves(batch)]
            seconds = next(pauses, None)
            if seconds is None or is_refusal(exc):
                raise
            report_wait(exc, seconds)
            await pause(seconds)
    return outcomes


def _halves(lines: Sequence[tuple[int, Line]]) -> list[Sequence[tuple[int, Line]]]:
    """Return the two halves of these lines. A single line is not divided."""
    middle = len(lines) // 2
    return [half for half in (lines[:middle], lines[middle:]) if half]


async def _import_batch(
    services: Services, lines: Sequence[tuple[int, Line]], notes_on_disk: NotesOnDisk, options: Options
) -> list[LineOutcome | LineRefused]:
    """Import a batch, and return the result of each line. Lock all administrators only if a line would remove one.

    Raises: TooManyChanges; StorageUnavailable.
    """
    try:
        return await _attempt_batch(services, lines, notes_on_disk, options, locks_administrators=False)
    except AdministratorsNotLocked:
        return await _attempt_batch(services, lines, notes_on_disk, options, locks_administrators=True)


@retrying(3, detail="too many concurrent changes to these users", conflicts=CONFLICTS)
async def _attempt_batch(
    services: Services,
    lines: Sequence[tuple[int, Line]],
    notes_on_disk: NotesOnDisk,
    options: Options,
    *,
    locks_administrators: bool,
) -> list[LineOutcome | LineRefused]:
    """Import a batch in one transaction, and return the result of each line. In a dry run, store nothing.

    Raises: AdministratorsNotLocked, if a line would remove an administrator, and `locks_administrators` is false;
        TooManyChanges, after three attempts; StorageUnavailable.
    """
    wanted = _wanted([line for _, line in lines])
    if not options.dry_run:  # the remaining data of an erased user must not become data of a new user with this id
        await erase_waiting_rows(services.database, wanted.user_ids)
    # An import can fill empty tables. With `replan`, PostgreSQL does not use a plan from a time when a table was empty.
    async with services.database.begin(replan=True) as transaction:
        batch = await _locked_batch(
            transaction,
            wanted,
            notes_on_disk,
            options,
            locks_administrators=locks_administrators,
            now=services.clock(),
        )
        outcomes = [_outcome(batch, number, line) for number, line in lines]
        changes = [] if options.dry_run else await batch.store(transaction)
    # These steps run after the commit, because an attempt that fails must neither keep nor log its changes. Unless this
    # is a dry run, later batches find all changes except `given` and `first_lines` in the database.
    notes = batch.notes
    notes_on_disk.replace(notes if options.dry_run else Notes(given=notes.given, first_lines=notes.first_lines))
    for change in changes:
        change.report(by=OPERATOR)
    return outcomes


async def _locked_batch(
    transaction: Transaction,
    wanted: Wanted,
    notes_on_disk: NotesOnDisk,
    options: Options,
    *,
    locks_administrators: bool,
    now: datetime,
) -> Batch:
    """Lock the users of the lines, and return the batch that will change them.

    Raises: ChangedMeanwhile, if ids of the lines have moved to other users before the lock, or if one of the users was
        just erased.
    """
    found = await find(transaction, wanted)
    users: Sequence[UserToImport] = []
    if found.user_ids or locks_administrators:
        # Both statements lock users in the order of their ids, as all code does, to avoid deadlocks.
        statement = LOCK_WITH_ADMINISTRATORS if locks_administrators else LOCK
        users = await transaction.rows(statement, user_ids=list(found.user_ids))
        # Other transactions may have changed the data before this transaction got the locks.
        found = await find(transaction, wanted, users)
        if not found.user_ids <= {user.id for user in users}:
            raise ChangedMeanwhile
    if not options.dry_run and await transaction.value(ARE_WAITING, user_ids=wanted.user_ids):
        raise ChangedMeanwhile  # a user has just been erased
    notes = notes_on_disk.notes_about(wanted, users, with_administrators=locks_administrators)
    return Batch(found, has_all_administrators=locks_administrators, notes=notes, options=options, now=now)


def _outcome(batch: Batch, number: int, line: Line) -> LineOutcome | LineRefused:
    """Apply a line to the batch, and return the outcome or the refusal."""
    try:
        return batch.apply(number, line)
    except LineRefused as exc:
        return exc


def _wanted(lines: Sequence[Line]) -> Wanted:
    """Return the identities, ids and phone numbers that these lines contain, each once."""
    external_ids: set[str] = set()
    user_ids: set[UUID] = set()
    for line in lines:
        if line.external_id is not None:
            external_ids.add(line.external_id)
        external_ids.update(line.former_external_ids)
        if line.user_id is not None:
            user_ids.add(line.user_id)
        user_ids.update(line.former_ids)
    return Wanted(
        identities=list({line.key for line in lines}),
        unionids=list({(line.key.app_id, line.unionid) for line in lines if line.unionid is not None}),
        external_ids=list(external_ids),
        user_ids=list(user_ids),
        phones=list({line.phone for line in lines if line.phone is not None}),
    )


def _count_and_report(
    read_lines: Sequence[_ReadLine],
    outcomes: Sequence[LineOutcome | LineRefused],
    counts: Counts,
    report_refusal: Callable[[ImportRefusal], None],
) -> None:
    """Add the lines of a batch to the counts, and call `report_refusal` for the refused lines and fields.

    `outcomes` contains one outcome for each line that could be read.
    """
    remaining_outcomes = iter(outcomes)
    for number, line, faults in read_lines:
        if line is None:
            counts.add(LineOutcome.REFUSED if faults else LineOutcome.BLANK)
            if faults:
                report_refusal(ImportRefusal(number, faults))
            continue
        outcome = next(remaining_outcomes)
        if isinstance(outcome, LineRefused):
            counts.add(LineOutcome.REFUSED)
            report_refusal(ImportRefusal(number, [*faults, *outcome.faults], outcome.other_lines))
        else:
            counts.add(outcome)
            if faults:
                counts.incomplete += 1
                report_refusal(ImportRefusal(number, faults, skips_only_fields=True))
        if line.openid is not None and len(line.openid) != USUAL_OPENID_LENGTH:
            counts.odd_openids += 1
