"""The notes that an import takes about its lines, in memory for a batch, and on disk for the whole file."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from tempfile import gettempdir
from types import GenericAlias
from typing import Any, Final, NamedTuple, cast, get_args, get_type_hints
from uuid import UUID

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from wxauth.import_export.lines import IdentityKey, unwrapped
from wxauth.import_export.numbered_lines import NumberedLine
from wxauth.import_export.queries import ConsentKey, StoredIdentity, UserToImport, Wanted
from wxauth.users.status_queries import ADMIN, StatusAndRoles

_CACHE_KIB: Final = 8192
"""The size limit of SQLite's cache in memory, in KiB."""


class GivenValue(NamedTuple):
    """The value that an identity's lines give for a field. It comes from the first accepted line with the field."""

    line: int
    """The number of the line."""
    hash: int
    """A hash of the value, which is stored for later batches because it takes less space than the value."""


GivenFields = dict[str, GivenValue]
"""The values that the lines about an identity have given, by the names of the fields."""


@dataclass(slots=True)
class Notes:
    """The changes that the lines of a batch make, and what later lines must know about earlier lines.

    The changes are new entries, and entries that replace stored ones. Each batch has its own object. At the start, the
    object contains `unionid_lines`, and what earlier batches have noted in `given` and `first_lines`. In a dry run, it
    also contains the changes of earlier batches, because the database does not contain them.
    """

    users: dict[UUID, UserToImport] = field(default_factory=dict)
    first_lines: dict[UUID, int] = field(default_factory=dict)
    """For each user, the number of the first accepted line about the user in the file."""
    identities: dict[IdentityKey, StoredIdentity] = field(default_factory=dict)
    unionids: dict[str, UUID] = field(default_factory=dict)
    """The owners of unionids."""
    openids: dict[tuple[str, str], str] = field(default_factory=dict)
    """The openids, by app and unionid."""
    apps_of_users: dict[UUID, set[str]] = field(default_factory=dict)
    """The apps in which the lines give each user an openid."""
    external_ids: dict[str, UUID] = field(default_factory=dict)
    """The owners of external ids, including former external ids."""
    former_ids: dict[UUID, UUID] = field(default_factory=dict)
    """The id of the user who has each of these ids as a former id, because of a merge."""
    consents: dict[UUID, set[ConsentKey]] = field(default_factory=dict)
    given: dict[IdentityKey, GivenFields] = field(default_factory=dict)
    """The user's fields that the lines about each identity have given."""
    unionid_lines: dict[str, int] = field(default_factory=dict)
    """The unionids in the file that equal the `openid` in the key of a line of the batch (see `IdentityKey`).

    The value is the number of the first line in the file that has this unionid.
    """


_ENTRY_PARSERS: Final[dict[str, TypeAdapter[tuple[Any, Any]]]] = {
    kind: TypeAdapter(cast("Any", GenericAlias(tuple, get_args(hint)))) for kind, hint in get_type_hints(Notes).items()
}
"""The parsers of the entries in each dict of `Notes`, by the name of the dict.

For a `dict[UUID, int]`, for example, the parser reads a `tuple[UUID, int]`, which is a key and its value.
"""


class NotesOnDisk:
    """The notes of all batches so far, in a temporary file, because the notes may be larger than the memory.

    If no folder for temporary files is writable, the notes are in memory.

    The notes also include the unionids of the whole file. In a dry run, they include all changes that the lines have
    made so far. Otherwise, the database contains these changes.

    Each row is an entry of one of the dicts of `Notes`: the name of the dict (`kind`), the key and the value. A method
    that writes rows writes all of them in one SQLite transaction, because separate transactions would take longer.
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
        """Close the database, which deletes its temporary file.

        SQLite accepts this call only from the thread that created the object.
        """
        self._connection.close()

    def notes_about(self, wanted: Wanted, users: Iterable[UserToImport], *, with_administrators: bool) -> Notes:
        """Return the notes about the ids in a batch, and about these stored users.

        With `with_administrators`, the result also contains all administrators whom a dry run has noted.
        """
        notes = Notes(
            given=self._entries("given", wanted.identities),
            identities=self._entries("identities", wanted.identities),
            openids=self._entries("openids", wanted.unionids),
            unionids=self._entries("unionids", [unionid for _, unionid in wanted.unionids]),
            external_ids=self._entries("external_ids", wanted.external_ids),
            former_ids=self._entries("former_ids", wanted.user_ids),
            unionid_lines=self._entries("unionid_lines", [key.openid for key in wanted.identities]),
        )
        user_ids = {user.id for user in users}
        user_ids.update(wanted.user_ids, notes.unionids.values(), notes.external_ids.values())
        user_ids.update(identity.user_id for identity in notes.identities.values())
        for kind in ("users", "first_lines", "apps_of_users", "consents"):
            setattr(notes, kind, self._entries(kind, user_ids))
        if with_administrators:
            notes.users |= self._administrators()
        return notes

    def add_unionids(self, lines: Iterable[NumberedLine]) -> None:
        """Store each unionid of the file with the number of its first line.

        The rule `UNIONID_AS_OPENID` needs them, because a line must not use a unionid of the file as its openid.
        """
        rows = (("unionid_lines", _json(unionid), _json(number)) for number, unionid in _unionids_in(lines))
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR IGNORE INTO notes VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def replace(self, notes: Notes) -> None:
        """Store the notes of a batch in place of the notes that `notes_about` has returned for the batch."""
        self._connection.execute("BEGIN")
        for kind in _ENTRY_PARSERS:
            rows = ((kind, _json(key), _json(value)) for key, value in getattr(notes, kind).items())
            self._connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def _administrators(self) -> dict[UUID, UserToImport]:
        """Return the noted users who are administrators, by id."""
        # This pattern also finds the few users whose other fields contain the text. They are left out below.
        rows = self._connection.execute(
            "SELECT key, value FROM notes WHERE kind = 'users' AND value LIKE ?", (f'%"{ADMIN}"%',)
        )
        users = _parsed("users", rows)
        return {user_id: user for user_id, user in users.items() if StatusAndRoles.of(user).is_administrator}

    def _entries(self, kind: str, keys: Iterable[object]) -> dict[Any, Any]:
        """Return the entries with these keys that are stored for the dict `kind` of `Notes`."""
        # The keys are a single parameter, because SQLite limits the number of a statement's parameters.
        select = "SELECT key, value FROM notes WHERE kind = ? AND key IN (SELECT value FROM json_each(?))"
        return _parsed(kind, self._connection.execute(select, (kind, _json([_json(key) for key in keys]))))


def _parsed(kind: str, rows: Iterable[tuple[str, str]]) -> dict[Any, Any]:
    """Return entries for the dict `kind` of `Notes`. Each row contains the key and the value as JSON."""
    return dict(_ENTRY_PARSERS[kind].validate_json(f"[{key},{value}]") for key, value in rows)


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
