"""The notes that an import takes about its lines, in memory for a batch, and on disk for the whole file."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from tempfile import gettempdir
from types import GenericAlias
from typing import Any, Final, NamedTuple, cast, get_args, get_type_hints
from uuid import UUID

from pydantic import TypeAdapter
from pydantic_core import to_json

from wxauth.import_export.lines import IdentityKey
from wxauth.import_export.queries import ConsentKey, IdentityData, UserToImport, Wanted
from wxauth.settings.roles import ADMIN
from wxauth.users.status_queries import StatusAndRoles

_CACHE_KIB: Final = 8192


class GivenValue(NamedTuple):
    """What the first accepted line of an identity gives for a field. The hash takes less space than the value."""

    line: int
    hash: int


GivenFields = dict[str, GivenValue]


@dataclass(slots=True)
class Notes:
    """The changes that the lines of a batch make, and what later lines must know about earlier lines.

    At its start, a batch has `unionid_lines`, and the earlier batches' `given` and `first_lines`. In a dry run, it also
    has their changes, because the database does not contain them.
    """

    users: dict[UUID, UserToImport] = field(default_factory=dict)
    first_lines: dict[UUID, int] = field(default_factory=dict)  # the first accepted line about each user in the file
    identities: dict[IdentityKey, IdentityData] = field(default_factory=dict)
    unionids: dict[str, UUID] = field(default_factory=dict)
    openids: dict[tuple[str, str], str] = field(default_factory=dict)  # by app and unionid
    apps_of_users: dict[UUID, set[str]] = field(default_factory=dict)
    external_ids: dict[str, UUID] = field(default_factory=dict)  # current and former ones
    former_ids: dict[UUID, UUID] = field(default_factory=dict)
    consents: dict[UUID, set[ConsentKey]] = field(default_factory=dict)
    given: dict[IdentityKey, GivenFields] = field(default_factory=dict)
    # The first line with each unionid that equals the `openid` in the key of a line of the batch.
    unionid_lines: dict[str, int] = field(default_factory=dict)


# Each dict of `Notes` has a parser of a key and its value, under its name.
_ENTRY_PARSERS: Final[dict[str, TypeAdapter[tuple[Any, Any]]]] = {
    kind: TypeAdapter(cast("Any", GenericAlias(tuple, get_args(hint)))) for kind, hint in get_type_hints(Notes).items()
}


class NotesOnDisk:
    """The notes of all batches so far, in a temporary file, because they may be larger than the memory.

    They include the unionids of the whole file and, in a dry run, all changes so far, which the database contains
    otherwise. Each row is an entry of one of the dicts of `Notes` (`kind`). All rows of a batch are written in one
    transaction, because separate ones would take longer.
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
        self._connection.execute("CREATE TABLE notes (kind, key, value, PRIMARY KEY (kind, key)) WITHOUT ROWID")

    def close(self) -> None:
        """Delete the temporary file. SQLite accepts this call only from the thread that created the object."""
        self._connection.close()

    def notes_about(self, wanted: Wanted, users: Iterable[UserToImport], *, with_administrators: bool) -> Notes:
        """Return the notes about a batch and these users and, if wanted, all noted administrators."""
        keys: dict[str, Iterable[object]] = {
            "given": wanted.identities,
            "identities": wanted.identities,
            "openids": wanted.unionids,
            "unionids": [unionid for _, unionid in wanted.unionids],
            "external_ids": wanted.external_ids,
            "former_ids": wanted.user_ids,
            "unionid_lines": [key.openid for key in wanted.identities],
        }
        notes = Notes(**{kind: self._entries(kind, keys_of_kind) for kind, keys_of_kind in keys.items()})
        user_ids = {user.id for user in users}
        user_ids.update(wanted.user_ids, notes.unionids.values(), notes.external_ids.values())
        user_ids.update(identity.user_id for identity in notes.identities.values())
        kinds_by_user = _ENTRY_PARSERS.keys() - keys.keys()
        notes = replace(notes, **{kind: self._entries(kind, user_ids) for kind in kinds_by_user})
        if with_administrators:
            notes.users |= self._administrators()
        return notes

    def add_unionids(self, unionids: Iterable[tuple[int, str]]) -> None:
        """Store the first line of each unionid, for the rule `UNIONID_AS_OPENID`."""
        rows = (("unionid_lines", _json(unionid), _json(number)) for number, unionid in unionids)
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR IGNORE INTO notes VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def store(self, notes: Notes) -> None:
        """Store the notes of a batch in place of the notes that `notes_about` has returned for the batch."""
        self._connection.execute("BEGIN")
        for kind in _ENTRY_PARSERS:
            rows = ((kind, _json(key), _json(value)) for key, value in getattr(notes, kind).items())
            self._connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def _administrators(self) -> dict[UUID, UserToImport]:
        # This pattern also finds the few users whose other fields contain the text. They are left out below.
        rows = self._connection.execute(
            "SELECT key, value FROM notes WHERE kind = 'users' AND value LIKE ?", (f'%"{ADMIN}"%',)
        )
        users = _parsed("users", rows)
        return {user_id: user for user_id, user in users.items() if StatusAndRoles.of(user).is_administrator}

    def _entries(self, kind: str, keys: Iterable[object]) -> dict[Any, Any]:
        # The keys are a single parameter, because SQLite limits the number of a statement's parameters.
        select = "SELECT key, value FROM notes WHERE kind = ? AND key IN (SELECT value FROM json_each(?))"
        return _parsed(kind, self._connection.execute(select, (kind, _json([_json(key) for key in keys]))))


def _parsed(kind: str, rows: Iterable[tuple[str, str]]) -> dict[Any, Any]:
    return dict(_ENTRY_PARSERS[kind].validate_json(f"[{key},{value}]") for key, value in rows)


def _json(value: object) -> str:
    return to_json(value).decode()
