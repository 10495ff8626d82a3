"""The import of users. The lines are read and stored in batches, by the rules of a login.

A batch is one transaction. If an import was killed, run it again. The result is the same as without the interruption.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from tempfile import gettempdir
from types import GenericAlias
from typing import Any, Final, NamedTuple, cast, get_args, get_type_hints
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from wxauth.apps.registry import Apps
from wxauth.core.database import Transaction
from wxauth.core.outages import CONFLICTS, is_refusal
from wxauth.core.retrying import ChangedMeanwhile, TooManyChanges, retrying
from wxauth.core.services import Services
from wxauth.errors import StorageUnavailable
from wxauth.import_export.batch import AdministratorEnds, Batch, LineOutcome, LineRefused
from wxauth.import_export.files import NumberedLine
from wxauth.import_export.lines import SKIPPABLE, Fault, Line, unwrapped, without
from wxauth.import_export.options import Options
from wxauth.import_export.queries import LOCK, LOCK_WITH_ADMINISTRATORS, Made, UserToImport, Wanted, find
from wxauth.users.erasure_queries import ARE_WAITING, erase_rest

BATCH: Final = 1000
"""The largest number of lines per transaction. Logins of the same users wait until the transaction ends."""

USUAL_OPENID: Final = 28
"""The length of WeChat's openids at present, in characters. WeChat does not guarantee this length."""
_PAUSES: Final = (1, 2, 4, 8, 15, *[30] * 19)
"""The pauses, in seconds, before each retry of a batch.

In total, they are ten minutes, longer than a failover or restart.
"""


class ImportRefusal(NamedTuple):
    """The refusal of a line, with its faults."""

    number: int
    faults: Sequence[Fault]
    others: Sequence[int] = ()
    """The numbers of the other lines that the refused line contradicts."""
    is_of_fields: bool = False
    """Whether only the fields with these faults are refused, so that the line is imported without them."""


@dataclass(slots=True)
class Counts:
    """The number of lines by outcome. Each line of the file is counted once, except the header of CSV."""

    joined: int = 0
    """The updated lines that joined a user only by external_id. This count comes first, because it reveals mistakes."""
    lines: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    incomplete: int = 0
    """The lines that were imported without their invalid fields."""
    blank: int = 0
    odd_openids: int = field(default=0, compare=False)
    """The readable lines whose openid has another length than `USUAL_OPENID`."""

    def add(self, outcome: LineOutcome) -> None:
        """Count a line."""
        self.lines += 1
        setattr(self, outcome, getattr(self, outcome) + 1)
        if outcome is LineOutcome.JOINED:
            self.updated += 1


_CACHE_KIB: Final = 8192
_PAIRS: Final[dict[str, TypeAdapter[tuple[Any, Any]]]] = {
    kind: TypeAdapter(cast("Any", GenericAlias(tuple, get_args(hint)))) for kind, hint in get_type_hints(Made).items()
}
"""The types of key and value, for each kind of change."""


class MadeOnDisk:
    """The changes that the lines have made so far. A batch gets those changes that may concern its lines."""

    def __init__(self) -> None:
        name = ""
        try:
            gettempdir()
        except FileNotFoundError:
            name = ":memory:"
        self._file = sqlite3.connect(name, isolation_level=None)
        self._file.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("CREATE TABLE made (kind, name, value, PRIMARY KEY (kind, name)) WITHOUT ROWID")

    def close(self) -> None:
        """Delete the file, in the thread that has created it."""
        self._file.close()

    def made(self, wanted: Wanted, users: Iterable[UserToImport]) -> Made:
        """Return the changes of earlier lines to the names and ids of a batch, and to these stored users."""
        made = Made(
            given=self._found("given", wanted.identities),
            identities=self._found("identities", wanted.identities),
            openids=self._found("openids", wanted.unionids),
            unionids=self._found("unionids", [unionid for _, unionid in wanted.unionids]),
            external_ids=self._found("external_ids", wanted.external_ids),
            former_ids=self._found("former_ids", wanted.ids),
            unionid_lines=self._found("unionid_lines", [openid for _, openid in wanted.identities]),
        )
        ids = {user.id for user in users}.union(wanted.ids, made.unionids.values(), made.external_ids.values())
        ids.update(identity.user_id for identity in made.identities.values())
        for kind in ("users", "first_lines", "apps_of_users", "consents"):
            setattr(made, kind, self._found(kind, ids))
        return made

    def note_unionids(self, lines: Iterable[NumberedLine]) -> None:
        """Store each unionid of the file with the first line that contains it, so that no line uses it as an openid."""
        rows = (("unionid_lines", _text(unionid), _text(number)) for number, unionid in _unionids_in(lines))
        self._file.execute("BEGIN")
        self._file.executemany("INSERT OR IGNORE INTO made VALUES (?, ?, ?)", rows)
        self._file.execute("COMMIT")

    def keep(self, made: Made) -> None:
        """Store the changes of a batch, including the changes of earlier batches that it was given."""
        self._file.execute("BEGIN")
        for kind in _PAIRS:
            rows = ((kind, _text(key), _text(value)) for key, value in getattr(made, kind).items())
            self._file.executemany("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", rows)
        self._file.execute("COMMIT")

    def _found(self, kind: str, keys: Iterable[object]) -> dict[Any, Any]:
        rows = "SELECT name, value FROM made WHERE kind = ? AND name IN (SELECT value FROM json_each(?))"
        found = self._file.execute(rows, (kind, _text([_text(key) for key in keys])))
        return dict(_PAIRS[kind].validate_json(f"[{name},{value}]") for name, value in found)


async def import_users(
    services: Services,
    lines: Iterable[NumberedLine],
    options: Options,
    *,
    refuse: Callable[[ImportRefusal], None],
    progress: Callable[[Counts], None],
    waiting: Callable[[StorageUnavailable, float], None] = lambda _exc, _seconds: None,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Counts:
    """Import lines of JSON by the rules of a login.

    The lines are read twice, first for the rules that concern all lines. `refuse` is called for each refused line, in
    order, and for each line whose bad fields are skipped. `progress` is called after each batch. `waiting` is called
    with the reason and the seconds before a batch that the database did not accept is retried.

    Raises: StorageUnavailable, after ten minutes. Earlier batches remain stored, and the same lines can be imported
    again. Errors of the first reading are raised before anything is stored.
    """
    counts = Counts()
    await services[Apps].refresh()
    parts = {**services.parts, ZoneInfo: options.time_zone}
    with closing(MadeOnDisk()) as kept:
        kept.note_unionids(lines)
        numbered = iter(lines)
        while batch := list(islice(numbered, BATCH)):
            read = [(each, *_read(each, parts, options)) for each in batch]
            readable = [(each.number, line) for each, line, _ in read if line is not None]
            outcomes: list[LineOutcome | LineRefused] = []
            size, pauses = BATCH, iter(_PAUSES)
            while left := readable[len(outcomes) :]:
                try:
                    outcomes += await _import_batch(services, left[:size], kept, options)
                except StorageUnavailable as exc:
                    seconds = next(pauses, None)
                    if seconds is None or is_refusal(exc):
                        raise
                    waiting(exc, seconds)
                    await pause(seconds)
                    size = max(min(size, len(left)) // 2, 1)  # the batch might have exceeded its time limit
            stored = iter(outcomes)
            for (number, _), line, faults in read:
                outcome = next(stored) if line is not None else LineRefused(()) if faults else LineOutcome.BLANK
                if isinstance(outcome, LineRefused):
                    counts.add(LineOutcome.REFUSED)
                    refuse(ImportRefusal(number, [*faults, *outcome.faults], outcome.others))
                    continue
                counts.add(outcome)
                if faults:
                    counts.incomplete += 1
                    refuse(ImportRefusal(number, faults, is_of_fields=True))
            counts.odd_openids += sum(len(line.openid or "") not in (0, USUAL_OPENID) for _, line in readable)
            progress(counts)
    return counts


def _read(given: NumberedLine, parts: Mapping[type, Any], options: Options) -> tuple[Line | None, Sequence[Fault]]:
    """Return the line and its faults. The line is None if it is refused.

    Skipped invalid fields of the line are null.
    """
    if not isinstance(given.text, bytes):
        return None, () if given.text is None else [given.text]
    line = Line.read(given.text, parts)
    if isinstance(line, Line):
        return line, ()
    fields = {fault.field for fault in line}
    if not options.skips_bad_fields or not fields <= SKIPPABLE:
        return None, line
    whole = Line.read(without(given.text, fields), parts)
    return (whole, line) if isinstance(whole, Line) else (None, whole)


async def _import_batch(
    services: Services, lines: Sequence[tuple[int, Line]], kept: MadeOnDisk, options: Options
) -> list[LineOutcome | LineRefused]:
    """Import a batch, and return the result of each line. If logins of the same users write first, halve the batch."""
    try:
        return await _import_whole(services, lines, kept, options)
    except TooManyChanges:
        if len(lines) == 1:
            raise
    # A smaller batch takes less time, in which fewer logins can write first.
    middle = len(lines) // 2
    first = await _import_batch(services, lines[:middle], kept, options)
    return [*first, *await _import_batch(services, lines[middle:], kept, options)]


@retrying(3, failure="too many concurrent changes to these users", conflicts=CONFLICTS)
async def _import_whole(
    services: Services,
    lines: Sequence[tuple[int, Line]],
    kept: MadeOnDisk,
    options: Options,
    *,
    with_administrators: bool = False,
) -> list[LineOutcome | LineRefused]:
    """Import a batch in one transaction. If a line would remove an administrator, begin again with all of them locked.

    Raises: TooManyChanges.
    """
    wanted = _wanted([line for _, line in lines])
    if not options.dry_run:  # the remaining data of erased ids must not become part of a new user
        await erase_rest(services.database, wanted.ids)
    try:
        async with services.database.begin(replan=True) as transaction:
            batch = await _find(
                transaction, wanted, kept, options, with_administrators=with_administrators, now=services.clock()
            )
            outcomes = [_outcome(batch, number, line) for number, line in lines]
            settled = [] if options.dry_run else await batch.store(transaction)
    except AdministratorEnds:
        return await _import_whole(services, lines, kept, options, with_administrators=True)
    # These steps run after the commit, because an attempt that is repeated must not store its changes.
    made = batch.made
    kept.keep(made if options.dry_run else Made(given=made.given, first_lines=made.first_lines))
    for one in settled:
        one.report()
    return outcomes


async def _find(
    transaction: Transaction,
    wanted: Wanted,
    kept: MadeOnDisk,
    options: Options,
    *,
    with_administrators: bool,
    now: datetime,
) -> Batch:
    """Find and lock the users of the lines. Raises: ChangedMeanwhile."""
    # All code locks users in the order of their ids, including administrators.
    found = await find(transaction, wanted)
    users: Sequence[UserToImport] = []
    if found.user_ids:
        statement = LOCK_WITH_ADMINISTRATORS if with_administrators else LOCK
        users = await transaction.rows(statement, user_ids=list(found.user_ids))
        found = await find(transaction, wanted, users)
        if not found.user_ids <= {user.id for user in users}:
            raise ChangedMeanwhile
    if not options.dry_run and await transaction.value(ARE_WAITING, user_ids=wanted.ids):
        raise ChangedMeanwhile  # a user has just been erased
    made = kept.made(wanted, users)
    return Batch(found, has_administrators=with_administrators, made=made, options=options, now=now)


def _outcome(batch: Batch, number: int, line: Line) -> LineOutcome | LineRefused:
    try:
        return batch.apply(number, line)
    except LineRefused as exc:
        return exc


def _wanted(lines: Sequence[Line]) -> Wanted:
    ids = {line.user_id for line in lines if line.user_id is not None}
    return Wanted(
        identities=list({line.key for line in lines}),
        unionids=list({(line.key[0], line.unionid) for line in lines if line.unionid}),
        external_ids=list(
            {name for line in lines for name in (line.external_id, *line.former_external_ids) if name is not None}
        ),
        ids=list(ids.union(*(line.former_ids for line in lines))),
        phones=list({line.phone for line in lines if line.phone}),
    )


def _unionids_in(lines: Iterable[NumberedLine]) -> Iterator[tuple[int, str]]:
    for number, text in lines:
        if isinstance(text, bytes) and b'"unionid"' in text:
            with suppress(ValueError):  # text that is not JSON, so that the line is refused
                given = from_json(text)
                if isinstance(given, dict) and isinstance(unionid := unwrapped(given.get("unionid")), str):
                    yield number, unionid


def _text(value: object) -> str:
    return to_json(value).decode()
