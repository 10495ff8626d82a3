"""Orders in SQLite, keyed by wxauth's user ids. Events about these users erase or move their orders."""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS orders (user_id TEXT NOT NULL, item TEXT NOT NULL, placed_by TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events_seen (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS former_users (id TEXT PRIMARY KEY, user_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS feed (cursor TEXT NOT NULL);
"""


class Orders:
    """The orders of all users. The transaction of an event stores its id, so a repeated event changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._connect()) as database:
            database.executescript(_TABLES)

    def add(self, user_id: str, item: str) -> None:
        # If two users were merged by mistake, `placed_by` tells the staff who placed the order.
        with closing(self._connect()) as database, database:
            database.execute("INSERT INTO orders VALUES (?, ?, ?)", (_remaining(database, user_id), item, user_id))

    def of(self, user_id: str) -> list[str]:
        with closing(self._connect()) as database:
            rows = database.execute("SELECT item FROM orders WHERE user_id = ?", (user_id,))
            return [item for (item,) in rows]

    def follow(self, event: Mapping[str, Any]) -> None:
        """Apply an event from wxauth, unless it has already been applied."""
        with closing(self._connect()) as database, database:
            if not database.execute("INSERT OR IGNORE INTO events_seen VALUES (?)", (event["id"],)).rowcount:
                return
            match event["type"]:
                case "user.erased":  # under any of their ids, because a merge's event might arrive later
                    _forget(database, [event["user_id"], *event["data"]["former_ids"]])
                case "user.merged":
                    _move(database, event["data"]["former_id"], event["user_id"])

    def catch_up(self, users: Mapping[str, Mapping[str, Any]], asked: Iterable[str]) -> None:
        """Apply the missed events of the users whose ids are in `asked`.

        `users` maps each of these ids to the user, if the user still exists.
        """
        with closing(self._connect()) as database, database:
            for user_id in asked:
                if user_id not in users:
                    _forget(database, [user_id])
                    continue
                remaining = users[user_id]["id"]
                if remaining != user_id:
                    _move(database, user_id, remaining)

    def user_ids(self) -> list[str]:
        with closing(self._connect()) as database:
            rows = database.execute("SELECT DISTINCT user_id FROM orders")
            return [user_id for (user_id,) in rows]

    @property
    def cursor(self) -> str | None:
        with closing(self._connect()) as database:
            row = database.execute("SELECT cursor FROM feed").fetchone()
        return None if row is None else str(row[0])

    @cursor.setter
    def cursor(self, cursor: str) -> None:
        with closing(self._connect()) as database, database:
            database.execute("DELETE FROM feed")
            database.execute("INSERT INTO feed VALUES (?)", (cursor,))

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10)


def _remaining(database: sqlite3.Connection, user_id: str) -> str:
    row = database.execute("SELECT user_id FROM former_users WHERE id = ?", (user_id,)).fetchone()
    return user_id if row is None else str(row[0])


def _move(database: sqlite3.Connection, former_id: str, user_id: str) -> None:
    # wxauth does not guarantee the order of webhooks, so the second of two merges might arrive first.
    remaining = _remaining(database, user_id)
    database.execute("INSERT OR REPLACE INTO former_users VALUES (?, ?)", (former_id, remaining))
    database.execute("UPDATE former_users SET user_id = ? WHERE user_id = ?", (remaining, former_id))
    database.execute("UPDATE orders SET user_id = ? WHERE user_id = ?", (remaining, former_id))


def _forget(database: sqlite3.Connection, user_ids: list[str]) -> None:
    for user_id in user_ids:
        database.execute("DELETE FROM orders WHERE user_id = ?", (user_id,))
        database.execute("DELETE FROM former_users WHERE ? IN (id, user_id)", (user_id,))
