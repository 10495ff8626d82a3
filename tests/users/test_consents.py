"""Users give and withdraw consents."""

import json
from typing import Any

import httpx
import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Body, LogIn, Phone, Rows, Stage, bearer, behind, body_of, recorded, set_roles

IN_FORCE = {"privacy": "2026-05", "terms": "3"}
PRIVACY, TERMS = [{"document": document, "version": version} for document, version in IN_FORCE.items()]


class AgreeingPhone(Phone):
    """A mini-program on a user's phone, through which the user gives and withdraws consents."""

    def __init__(self, login: LogIn) -> None:
        super().__init__(login.client)
        self.login = login

    async def log_in(self, person: str = "alice", **how: Any) -> Body:
        self.tokens = await self.login(person, **how)
        return self.tokens["user"]

    async def agree(self, **documents: object) -> httpx.Response:
        return await self.ask("POST", "/consents", json=documents)

    async def due(self) -> Any:
        return (await self.ask("GET")).json().get("consents_due")

    async def listed(self) -> list[dict[str, Any]]:
        body = (await self.ask("GET", "/consents")).json()
        assert body.keys() == {"items", "next_cursor"}
        return body["items"]


@pytest.fixture
async def phone(stage: Stage) -> AgreeingPhone:
    return AgreeingPhone((await stage.replica(consents="privacy:2026-05,terms:3", apps=[APP, OTHER_APP])).login)


async def events(rows: Rows) -> list[tuple[str, Any, str]]:
    return await recorded(rows, "type, data, actor", "type LIKE 'consent.%'")


async def test_a_document_in_force_is_due_until_the_person_agrees(phone: AgreeingPhone) -> None:
    assert (await phone.log_in())["consents_due"] == [PRIVACY, TERMS]
    answer = body_of(await phone.agree(privacy="2026-05"))
    assert answer["items"] == [
        {
            **PRIVACY,
            "given_at": "2026-11-20T08:00:00Z",
            "withdrawn_at": None,
            "app_id": APP["app_id"],
            "ip": "127.0.0.1",
        }
    ]
    refreshed = await phone.client.post("/v1/refresh", json={"refresh_token": phone.tokens["refresh_token"]})
    assert refreshed.json()["user"]["consents_due"] == [TERMS]
    assert await phone.due() == [TERMS]
    assert (await phone.ask("PATCH", json={"nickname": "Alice"})).json()["consents_due"] == [TERMS]
    assert (await phone.log_in())["consents_due"] == [TERMS]


async def test_without_documents_in_force_nothing_is_due(login: LogIn) -> None:
    phone = AgreeingPhone(login)
    assert "consents_due" not in await phone.log_in(consents={"privacy": "1"})
    assert "consents_due" not in (await phone.ask("GET")).json()
    assert await phone.listed() == []


async def test_a_login_may_bring_consents_and_repeating_them_stores_no_more(stage: Stage, phone: AgreeingPhone) -> None:
    user = await phone.log_in(consents=IN_FORCE)
    assert user["consents_due"] == []
    stage.clock.advance(hours=1)
    await phone.log_in(consents=IN_FORCE)
    stored = sorted((it["document"], it["version"], it["given_at"]) for it in await phone.listed())
    assert stored == [(*consent, "2026-11-20T08:00:00Z") for consent in IN_FORCE.items()]
    assert await events(stage.rows) == [("consent.given", data, user["id"]) for data in (PRIVACY, TERMS)]


@swept(
    "consents",
    [{"privacy": "2025-01"}, {"cookies": "1"}, {"privacy": 202605}, {}, None, "privacy", ["privacy"], 7],
    ids=str,
)
async def test_a_login_is_refused_for_no_consent(phone: AgreeingPhone, rows: Rows, consents: object) -> None:
    assert (await phone.log_in(consents=consents))["consents_due"] == [PRIVACY, TERMS]
    assert await phone.listed() == []
    assert await events(rows) == []


async def test_a_consent_that_another_replica_is_storing_is_not_stored_again(phone: AgreeingPhone, rows: Rows) -> None:
    user_id = (await phone.log_in())["id"]
    stored = "UPDATE users SET consents = $2 WHERE id = $1"
    answer = await behind(rows, phone.agree(**IN_FORCE), stored, user_id, json.dumps(IN_FORCE))
    assert answer.status_code == 200
    assert await events(rows) == []


async def test_a_version_that_returns_is_neither_recorded_nor_logged_again(stage: Stage) -> None:
    for version in ("1", "2", "1"):
        phone = AgreeingPhone((await stage.replica(consents=f"privacy:{version}")).login)
        await phone.log_in(consents={"privacy": version})
        assert await phone.due() == []
    given = ["1", "2"]
    assert [data["version"] for _, data, _ in await events(stage.rows)] == given
    assert [line["version"] for line in stage.log_lines() if line["event"] == "consent_given"] == given


@pytest.mark.oldest_postgres
async def test_a_withdrawn_consent_stays_on_record_and_is_due_again(stage: Stage, phone: AgreeingPhone) -> None:
    await phone.log_in(consents=IN_FORCE)
    stage.clock.advance(minutes=1)
    assert (await phone.ask("DELETE", "/consents/privacy")).status_code == 204
    assert await phone.due() == [PRIVACY]
    for not_given in ("privacy", "cookies", "%E9%9A%90"):
        problem_of(await phone.ask("DELETE", f"/consents/{not_given}"), "not_found", 404)
    stage.clock.advance(minutes=1)
    await phone.agree(privacy="2026-05")
    assert await phone.due() == []
    times = [(item["given_at"], item["withdrawn_at"]) for item in await phone.listed() if item["document"] == "privacy"]
    assert times == [("2026-11-20T08:02:00Z", None), ("2026-11-20T08:00:00Z", "2026-11-20T08:01:00Z")]
    assert [(kind, data) for kind, data, _ in await events(stage.rows)] == [
        ("consent.given", PRIVACY),
        ("consent.given", TERMS),
        ("consent.withdrawn", PRIVACY),
        ("consent.given", PRIVACY),
    ]


@swept(
    ("body", "field"),
    [
        ({"privacy": "2026-05", "terms": "2"}, "terms"),
        ({"privacy": "2026-05", "cookies": "1"}, "body"),
        ({"privacy": "2026-05", "terms": 3}, "body"),
        (["privacy"], "body"),
    ],
    ids=str,
)
async def test_consents_with_a_version_not_in_force_are_refused(phone: AgreeingPhone, body: object, field: str) -> None:
    await phone.log_in()
    problem = problem_of(await phone.ask("POST", "/consents", json=body), "invalid_request", 422)
    assert problem["errors"][0]["field"] == field
    assert await phone.listed() == []


async def test_a_new_version_is_due_though_the_former_one_was_given(stage: Stage, phone: AgreeingPhone) -> None:
    await phone.log_in(consents=IN_FORCE)
    later = AgreeingPhone((await stage.replica(consents="privacy:2026-11,terms:3")).login)
    stage.clock.advance(days=1)
    due = (await later.log_in(consents={"privacy": "2026-05"}))["consents_due"]
    assert due == [{"document": "privacy", "version": "2026-11"}], "a mini-program of last week may still log in"
    await later.agree(privacy="2026-11")
    assert await later.due() == []
    await phone.log_in(consents=IN_FORCE)  # version 2026-05 is in force again, and so is its consent
    assert await phone.due() == []
    assert [item["version"] for item in await later.listed() if item["document"] == "privacy"] == ["2026-11", "2026-05"]


ADD_PAST = """
INSERT INTO consents (id, user_id, document, version, given_at, withdrawn_at)
SELECT gen_random_uuid(), users.id, 'privacy', n::text, '2020-01-01'::timestamptz + make_interval(days => n / 2), now()
  FROM users, generate_series(1, 250) AS n
"""
"""SQL that adds two consents at each time, so that the time is not enough to order them."""


async def test_consents_come_page_by_page_the_newest_first(phone: AgreeingPhone, rows: Rows) -> None:
    await phone.log_in(consents=IN_FORCE)
    await rows.execute(ADD_PAST)
    pages: list[list[dict[str, Any]]] = []
    cursor = ""
    while cursor is not None:
        body = (await phone.ask("GET", "/consents", params={"cursor": cursor})).json()
        pages.append(body["items"])
        cursor = body["next_cursor"]
    assert [len(page) for page in pages] == [100, 100, 52]
    items = [item for page in pages for item in page]
    assert len({(item["document"], item["version"]) for item in items}) == 252
    times = [item["given_at"] for item in items]
    assert times == sorted(times, reverse=True)
    small = (await phone.ask("GET", "/consents", params={"limit": 2})).json()
    assert {item["document"] for item in small["items"]} == {"privacy", "terms"}
    assert small["next_cursor"]


async def test_a_consent_is_answered_with_the_consents_to_documents_in_force(phone: AgreeingPhone, rows: Rows) -> None:
    await phone.log_in(consents={"terms": "3"})
    await rows.execute(ADD_PAST)
    answer = (await phone.agree(privacy="2026-05")).json()
    assert [(item["document"], item["version"], item["withdrawn_at"]) for item in answer["items"]] == [
        ("privacy", "2026-05", None),
        ("terms", "3", None),
    ]
    assert answer["next_cursor"] is None
    await phone.ask("DELETE", "/consents/terms")
    assert [item["document"] for item in (await phone.agree(privacy="2026-05")).json()["items"]] == ["privacy"]


async def test_administrators_see_what_a_user_has_agreed_to(phone: AgreeingPhone, rows: Rows) -> None:
    user = await phone.log_in(consents={"privacy": "2026-05"})
    await set_roles(rows, "admin")
    detail = await phone.client.get(f"/v1/admin/users/{user['id']}", headers=bearer(phone.tokens))
    assert detail.json()["consents"] == await phone.listed() != []
    await rows.execute(ADD_PAST)
    detail = await phone.client.get(f"/v1/admin/users/{user['id']}", headers=bearer(phone.tokens))
    assert detail.json()["consents"] == await phone.listed(), "the newest hundred"
