"""The import of users. The lines are read and stored in batches, by the same rules as at a login.

A batch is one transaction. After an import that was killed, another run leads to the same result as without the
interruption. A temporary file (`NotesOnDisk`) contains the notes about earlier lines that later batches need.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic_core import from_json

from wxauth.apps.registry import Apps
from wxauth.core.database import ChangedMeanwhile, TooManyChanges, Transaction, retrying
from wxauth.core.outages import CONFLICTS, is_refusal
from wxauth.core.services import Services
from wxauth.core.trail import OPERATOR
from wxauth.errors import StorageUnavailable
from wxauth.import_export.batch import AdministratorsNotLocked, Batch, LineOutcome, LineRefused
from wxauth.import_export.lines import SKIPPABLE_FIELDS, Fault, Line, unwrapped, without_fields
from wxauth.import_export.notes import Notes, NotesOnDisk
from wxauth.import_export.numbered_lines import NumberedLine
from wxauth.import_export.other_files import WrongFile
from wxauth.import_export.queries import LOCK, LOCK_WITH_ADMINISTRATORS, UserToImport, Wanted, find
from wxauth.import_export.rounded_ids import ROUNDED_IDS, RoundedIds
from wxauth.import_export.rules import Options
from wxauth.users.erasure_queries import ARE_WAITING, erase_waiting_rows

LINES_PER_BATCH: Final = 1000  # logins of these lines' users wait for the end of the transaction
USUAL_OPENID_LENGTH: Final = 28  # WeChat does not guarantee it
# An ID with fewer digits is never rounded. JSON can escape any character of a name, or of an ID.
_MAY_CONTAIN_IDS: Final = re.compile(rb'"unionid"|[0-9]{16}|\\u00[2-7]')
# Ten minutes in all are longer than a failover or a restart of the database.
PAUSES_SECONDS: Final = (1, 2, 4, 8, 15, *[30] * 19)

_ReadableLines = Sequence[tuple[int, Line]]  # with their numbers
_Outcome = LineOutcome | LineRefused


class ImportRefusal(NamedTuple):
    """The refusal of a line, or of some of its fields."""

    number: int
    faults: Sequence[Fault]
    other_lines: Sequence[int] = ()
    """The numbers of lines that the refused line might contradict."""
    skips_only_fields: bool = False
    """The line is imported without the fields that have these faults."""


@dataclass(slots=True)
class Counts:
    """The numbers of lines by outcome, without the header of CSV."""

    joined: int = 0
    """Lines that are also counted as updated. The number is first in JSON, because a high one reveals wrong IDs."""
    lines: int = 0  # without blank ones
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    incomplete: int = 0  # imported without their invalid fields
    blank: int = 0
    odd_openids: int = field(default=0, compare=False)  # not of `USUAL_OPENID_LENGTH`, which leads only to a warning

    def add(self, outcome: LineOutcome) -> None:
        """Count a line. The values of `LineOutcome` are names of fields."""
        self.lines += outcome is not LineOutcome.BLANK
        setattr(self, outcome, getattr(self, outcome) + 1)
        if outcome is LineOutcome.JOINED:
            self.updated += 1


class _ReadLine(NamedTuple):
    number: int
    line: Line | None
    """None if the line is blank or refused."""
    faults: Sequence[Fault]
    """If `line` is not None, its fields with these faults are null."""


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

    `lines` is iterated over twice, because some rules need the unionids and external IDs of the whole file. Errors of
    the first iteration are raised before anything is stored.

    `report_refusal` is called in the order of the lines, and `report_progress` after each batch. If the database does
    not accept a batch, `report_wait` gets the seconds until the retry, for which `pause` waits.

    Raises: StorageUnavailable, if the database does not accept a batch even after all retries, if a retry cannot
        help, or if an app cannot be read; WrongFile, also if the IDs look rounded; the other errors of `lines`. The
        stored batches are not undone, and the same lines can be imported again.
    """
    counts = Counts()
    await services[Apps].refresh()
    parts = {**services.parts, ZoneInfo: options.time_zone}  # the context of `Line.read`
    with closing(NotesOnDisk()) as notes_on_disk:
        rounded_ids = RoundedIds()
        notes_on_disk.add_unionids(_unionids_in(lines, rounded_ids))
        if rounded_ids.are_found and not options.ids_are_exact:
            raise WrongFile(ROUNDED_IDS)
        importer = _BatchImporter(services, notes_on_disk, options, report_wait, pause)
        remaining = iter(lines)
        while numbered_lines := list(islice(remaining, LINES_PER_BATCH)):
            read_lines = [_read(numbered, parts, options) for numbered in numbered_lines]
            readable = [(number, line) for number, line, _faults in read_lines if line is not None]
            outcomes = await importer.import_patiently(readable)
            _count_and_report(read_lines, outcomes, counts, report_refusal)
            report_progress(counts)
    return counts


def _unionids_in(lines: Iterable[NumberedLine], rounded_ids: RoundedIds) -> Iterator[tuple[int, str]]:
    """Also add the external IDs to `rounded_ids`, so that the file is read only once for both."""
    for number, text, _faults in lines:
        # Most other lines need not be parsed here.
        if not isinstance(text, bytes) or not _MAY_CONTAIN_IDS.search(text):
            continue
        try:
            values = from_json(text)
        except ValueError:  # the second reading refuses a line that is not JSON
            continue
        if not isinstance(values, dict):
            continue
        unionid = unwrapped(values.get("unionid"))
        external_id = unwrapped(values.get("external_id"))
        if isinstance(external_id, int | str):
            rounded_ids.add(str(external_id))
        if isinstance(unionid, str):
            yield number, unionid


def _read(numbered: NumberedLine, parts: Mapping[type, Any], options: Options) -> _ReadLine:
    number, text, faults = numbered
    if text is None:
        return _ReadLine(number, None, ())
    if isinstance(text, Fault):
        return _ReadLine(number, None, [text])
    line_or_faults = Line.read(text, parts)
    if isinstance(line_or_faults, Line):
        if not faults:
            return _ReadLine(number, line_or_faults, ())
    else:
        known = {fault.field for fault in faults}  # without a field that `--map` didn't find, `Line` may miss it, too
        faults = [*faults, *(fault for fault in line_or_faults if fault.field not in known)]
    fields = {fault.field for fault in faults}
    if not options.skips_bad_fields or not fields <= SKIPPABLE_FIELDS:
        return _ReadLine(number, None, faults)
    line_or_faults = Line.read(without_fields(text, fields), parts)
    if isinstance(line_or_faults, Line):
        return _ReadLine(number, line_or_faults, faults)
    return _ReadLine(number, None, line_or_faults)


@dataclass(frozen=True, slots=True)
class _BatchImporter:
    """The parts that all batches of one import share."""

    services: Services
    notes_on_disk: NotesOnDisk
    options: Options
    report_wait: Callable[[StorageUnavailable, float], None]
    pause: Callable[[float], Awaitable[None]]

    async def import_patiently(self, lines: _ReadableLines) -> list[_Outcome]:
        """Import lines as one batch. If the database does not accept it, try again with smaller batches."""
        outcomes: list[_Outcome] = []
        batches = [lines] if lines else []
        pauses = iter(PAUSES_SECONDS)
        while batches:
            next_batch, *later_batches = batches
            try:
                outcomes += await self._import_batch(next_batch)
                batches = later_batches
            except StorageUnavailable as exc:
                if isinstance(exc, TooManyChanges):
                    # A smaller batch takes less time, so fewer requests change its users meanwhile.
                    batches = [*_halves(next_batch), *later_batches]
                    if len(next_batch) > 1:
                        continue
                else:
                    # The remaining batches might exceed the time limit, too.
                    batches = [half for batch in batches for half in _halves(batch)]
                seconds = next(pauses, None)
                if seconds is None or is_refusal(exc):
                    raise
                self.report_wait(exc, seconds)
                await self.pause(seconds)
        return outcomes

    async def _import_batch(self, lines: _ReadableLines) -> list[_Outcome]:
        try:
            return await self._attempt_batch(lines, locks_administrators=False)
        except AdministratorsNotLocked:
            return await self._attempt_batch(lines, locks_administrators=True)

    @retrying(3, detail="too many concurrent changes to these users", conflicts=CONFLICTS)
    async def _attempt_batch(self, lines: _ReadableLines, *, locks_administrators: bool) -> list[_Outcome]:
        database, is_dry_run = self.services.database, self.options.dry_run
        wanted = _wanted([line for _, line in lines])
        if not is_dry_run:  # the remaining data of an erased user must not become data of a new user with this id
            await erase_waiting_rows(database, wanted.user_ids)
        # An import can fill empty tables. With `replan`, PostgreSQL does not use a plan from a time when a table was
        # empty.
        async with database.begin(replan=True) as transaction:
            batch = await self._locked_batch(transaction, wanted, locks_administrators=locks_administrators)
            outcomes = [_outcome(batch, number, line) for number, line in lines]
            changes = [] if is_dry_run else await batch.store(transaction)
        # The notes are stored after the commit, because an attempt that fails must neither keep nor log its changes.
        # Unless this is a dry run, later batches find the other notes in the database.
        notes = batch.notes
        self.notes_on_disk.store(notes if is_dry_run else Notes(given=notes.given, first_lines=notes.first_lines))
        for change in changes:
            change.report(by=OPERATOR)
        return outcomes

    async def _locked_batch(self, transaction: Transaction, wanted: Wanted, *, locks_administrators: bool) -> Batch:
        now = self.services.clock()
        found = await find(transaction, wanted)
        users: Sequence[UserToImport] = []
        if found.user_ids or locks_administrators:
            statement = LOCK_WITH_ADMINISTRATORS if locks_administrators else LOCK
            users = await transaction.rows(statement, user_ids=list(found.user_ids))
            # Other transactions may have changed the data before this transaction got the locks.
            found = await find(transaction, wanted, users)
            if not found.user_ids <= {user.id for user in users}:
                raise ChangedMeanwhile
        if not self.options.dry_run and await transaction.value(ARE_WAITING, user_ids=wanted.user_ids):
            raise ChangedMeanwhile  # a user has just been erased
        notes = self.notes_on_disk.notes_about(wanted, users, with_administrators=locks_administrators)
        return Batch(found, has_all_administrators=locks_administrators, notes=notes, options=self.options, now=now)


def _halves(lines: _ReadableLines) -> list[_ReadableLines]:
    middle = len(lines) // 2
    return [half for half in (lines[:middle], lines[middle:]) if half]


def _outcome(batch: Batch, number: int, line: Line) -> _Outcome:
    try:
        return batch.apply(number, line)
    except LineRefused as exc:
        return exc


def _wanted(lines: Sequence[Line]) -> Wanted:
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
    outcomes: Sequence[_Outcome],
    counts: Counts,
    report_refusal: Callable[[ImportRefusal], None],
) -> None:
    """`outcomes` contains one outcome for each line that could be read."""
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
