"""Administrators, who ask by `/v1/admin`."""

from typing import Any

import asyncpg
import httpx

from tests.headers import bearer

AT_LOGIN = ("user.created", "identity.added", "user.profile_changed")


class Admin:
    """An administrator, at the front door."""

    def __init__(self, client: httpx.AsyncClient, answer: dict[str, Any]) -> None:
        self.client = client
        self.answer = answer
        self.id: str = answer["user"]["id"]

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self.client.request(method, f"/v1/admin{path}", headers=bearer(self.answer), **options)

    async def read(self, path: str, **query: object) -> dict[str, Any]:
        answer = await self.ask("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def names(self, **query: object) -> list[str | None]:
        return [user["nickname"] for user in (await self.read("/users", **query))["items"]]

    async def change(self, user_id: str, **change: object) -> dict[str, Any]:
        answer = await self.ask("PATCH", f"/users/{user_id}", json=change)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def events(self, **query: object) -> list[dict[str, Any]]:
        """Beside those of logging in."""
        items = (await self.read("/events", **query))["items"]
        return [event for event in items if event["type"] not in AT_LOGIN]


async def make_admin(client: httpx.AsyncClient, rows: asyncpg.Connection, answer: dict[str, Any]) -> Admin:
    await rows.execute("UPDATE users SET roles = '{admin}' WHERE id = $1", answer["user"]["id"])
    return Admin(client, answer)
