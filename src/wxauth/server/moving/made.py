"""What the lines of an import make: of one batch, or of the file as a whole, kept in a temporary database.

An import keeps what each identity was given, to find another line of it; a dry run keeps all that it would have stored.
In memory, a dry run of 50 million lines would take 75 GB (1.5 KB a line). SQLite's private database begins in memory,
and goes on in a file of the temporary folder that has no name, so that it is gone with the process. Where no folder
can be written, as in a container, it stays in memory.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from tempfile import gettempdir
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from wxauth.server.moving.import_rows import UserToImport, Wanted

IdentityKey = tuple[str, str]
"""App_id and openid."""
ConsentKey = tuple[UUID, str, str, datetime]
"""User, document, version and time."""


@dataclass(frozen=True, slots=True)
class MadeIdentity:
    """An identity that a line has added or changed."""

    user_id: UUID
    unionid: str | None
    created_at: datetime


GivenFields = dict[str, tuple[int, int]]
"""By field, the number of the line that gave it, and the hash of its value."""


@dataclass(slots=True)
class Made:
    """The changes made by the lines."""

    users: dict[UUID, UserToImport] = field(default_factory=dict)
    identities: dict[IdentityKey, MadeIdentity] = field(default_factory=dict)
    unionids: dict[str, UUID] = field(default_factory=dict)
    openids: dict[tuple[str, str], str] = field(default_factory=dict)
    """By app and unionid."""
    apps_of_users: set[tuple[UUID, str]] = field(default_factory=set)
    """Each user with each app in which they have an openid."""
    external_ids: dict[str, UUID] = field(default_factory=dict)
    former_ids: dict[UUID, UUID] = field(default_factory=dict)
    former_external_ids: dict[str, UUID] = field(default_factory=dict)
    consents: dict[ConsentKey, dict[str, Any]] = field(default_factory=dict)
    given: dict[IdentityKey, GivenFields] = field(default_factory=dict)
    """What the lines of an identity have said of its user."""


_CACHE_KIB: Final = 8192
_BY_PAIR: Final = TypeAdapter(tuple[str, str])
_IDENTITY: Final = TypeAdapter(MadeIdentity)
_APPS: Final = TypeAdapter(list[str])
_GIVEN: Final = TypeAdapter(GivenFields)
_CONSENTS: Final = TypeAdapter(list[ConsentKey])
_NO_FIELDS: Final = dict.fromkeys(UserToImport.model_fields)
_NAMED_USERS: Final = ("unionids", "external_ids", "former_external_ids")


class MadeOnDisk:
    """What the lines have made so far. A batch gets the part that its lines may concern."""

    def __init__(self) -> None:
        try:
            gettempdir()
        except FileNotFoundError:
            name = ":memory:"
        else:
            name = ""
        self._file = sqlite3.connect(name, isolation_level=None)
        self._file.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("CREATE TABLE made (kind, name, value, PRIMARY KEY (kind, name)) WITHOUT ROWID")

    def given(self, wanted: Wanted) -> dict[IdentityKey, GivenFields]:
        """What earlier lines have said of the identities of a batch."""
        found = self._found("given", map(_text, wanted.identities))
        return {_BY_PAIR.validate_json(name): _GIVEN.validate_json(given) for name, given in found}

    def made(self, wanted: Wanted, users: Iterable[UserToImport]) -> Made:
        """What earlier lines have made under the names and ids of a batch, and of these stored users."""
        unionids = [unionid for _, unionid in wanted.unionids]
        made = Made(given=self.given(wanted))
        for kind, names in zip(_NAMED_USERS, (unionids, wanted.external_ids, wanted.external_ids), strict=True):
            setattr(made, kind, {name: UUID(user_id) for name, user_id in self._found(kind, names)})
        for name, user_id in self._found("former_ids", map(str, wanted.ids)):
            made.former_ids[UUID(name)] = UUID(user_id)
        for name, identity in self._found("identities", map(_text, wanted.identities)):
            made.identities[_BY_PAIR.validate_json(name)] = _IDENTITY.validate_json(identity)
        for name, openid in self._found("openids", map(_text, wanted.unionids)):
            made.openids[_BY_PAIR.validate_json(name)] = openid

        owners = [made.unionids, made.external_ids, made.former_external_ids]
        ids = {user.id for user in users}.union(wanted.ids, *(names.values() for names in owners))
        ids.update(identity.user_id for identity in made.identities.values())
        known = [str(user_id) for user_id in ids]
        for name, user in self._found("users", known):
            made.users[UUID(name)] = UserToImport.model_validate(_NO_FIELDS | from_json(user))
        for name, apps in self._found("apps_of_users", known):
            made.apps_of_users.update((UUID(name), app_id) for app_id in _APPS.validate_json(apps))
        for _, keys in self._found("consents", known):
            made.consents.update((key, {}) for key in _CONSENTS.validate_json(keys))
        return made

    def keep(self, made: Made) -> None:
        """Keep what a batch has made, with what it was given of earlier ones."""
        self._file.execute("BEGIN")
        for kind in _NAMED_USERS:
            self._put(kind, ((name, str(user_id)) for name, user_id in getattr(made, kind).items()))
        self._put("former_ids", ((str(name), str(user_id)) for name, user_id in made.former_ids.items()))
        self._put("identities", ((_text(key), _text(identity)) for key, identity in made.identities.items()))
        self._put("openids", ((_text(key), openid) for key, openid in made.openids.items()))
        users = ((str(user_id), user.model_dump_json(exclude_none=True)) for user_id, user in made.users.items())
        self._put("users", users)
        apps: dict[str, list[str]] = {}
        for user_id, app_id in made.apps_of_users:
            apps.setdefault(str(user_id), []).append(app_id)
        self._put("apps_of_users", ((name, _text(each)) for name, each in apps.items()))
        consents: dict[str, list[ConsentKey]] = {}
        for key in made.consents:
            consents.setdefault(str(key[0]), []).append(key)
        self._put("consents", ((name, _text(each)) for name, each in consents.items()))
        self._put("given", ((_text(key), _text(given)) for key, given in made.given.items()))
        self._file.execute("COMMIT")

    def _found(self, kind: str, names: Iterable[str]) -> Sequence[tuple[str, str]]:
        rows = "SELECT name, value FROM made WHERE kind = ? AND name IN (SELECT value FROM json_each(?))"
        return self._file.execute(rows, (kind, _text(list(names)))).fetchall()

    def _put(self, kind: str, rows: Iterable[tuple[str, str]]) -> None:
        self._file.executemany("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", ((kind, *row) for row in rows))


def _text(value: object) -> str:
    return to_json(value).decode()
