"""`/v1/admin` works as the guides describe it."""

import asyncio
from uuid import UUID

import httpx
import pytest
from pydantic import TypeAdapter

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import BESIDE_LOGINS, NOBODY, Admin, Body, LogIn, Stage, bearer, make_admin, recorded, set_roles
from wxauth.core.models import EventFields
from wxauth.core.users import PROFILE_FIELDS
from wxauth.users.schemas import UserDetailAnswer, UsersAnswer
from wxauth.web.pages import Items

Ids = dict[str, str]

# Search.


@pytest.fixture
async def people(stage: Stage, root: Admin) -> Ids:
    """Return ids by nickname. Alice uses both apps, Bob only uses the other app, and 100%_小明 only the first app."""
    ids = {"Root": root.id}
    for nickname, app in (("Alice", APP), ("Bob", OTHER_APP), ("100%_小明", APP)):
        name = nickname[:3].lower()
        ids[nickname] = (await stage.login(name, app=app, unionid=f"union-{name}", nickname=nickname))["user"]["id"]
    await stage.login("ali", app=OTHER_APP, unionid="union-ali")
    await stage.rows.execute("UPDATE users SET phone = '+8613800138000' WHERE id = $1", ids["Bob"])
    await stage.rows.execute("UPDATE users SET external_id = '10023' WHERE id = $1", ids["Alice"])
    await set_roles(stage.rows, "editor", "support", user_id=ids["Alice"])
    await stage.rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1", ids["Bob"])
    return ids


@swept(
    ("q", "found"),
    [
        ("Alice", ["Alice"]),
        ("LIC", ["Alice"]),
        (" bob ", ["Bob"]),
        ("o", ["Bob", "Root"]),
        ("小", ["100%_小明"]),
        ("%_", ["100%_小明"]),
        ("b%b", []),
        ("Al_ce", []),
        ("openid-a1-ali", ["Alice"]),
        ("openid-b2-ali", ["Alice"]),
        ("openid-b2-al", []),
        ("10023", ["Alice"]),
        ("1002", []),
        ("OPENID-B2-ALI", []),
        ("union-bob", ["Bob"]),
        ("union-bo", []),
        ("+8613800138000", ["Bob"]),
        ("8613800138000", ["Bob"]),
        ("13800138000", ["Bob"]),
        ("+86 138 0013 8000", ["Bob"]),
        ("138-0013-8000", ["Bob"]),
        ("１３８００１３８０００", ["Bob"]),
        ("0086 138 0013 8000", ["Bob"]),
        ("+852 13800138000", []),
        ("1380013800", []),
        ("{Alice}", ["Alice"]),
        ("{ALICE}", ["Alice"]),
        *((form, []) for form in ("{Alice}{", "urn:uuid:{Alice}", "{{Alice}}", "{alice}")),
        (str(NOBODY), []),
        ("", ["100%_小明", "Bob", "Alice", "Root"]),
        ("  ", ["100%_小明", "Bob", "Alice", "Root"]),
        ("' OR 1=1 --", []),
        ("\\", []),
    ],
)
async def test_q_is_part_of_a_nickname_or_some_whole_value(root: Admin, people: Ids, q: str, found: list[str]) -> None:
    q = q.replace("{Alice}", people["Alice"]).replace("{ALICE}", people["Alice"].upper())
    q = q.replace("{alice}", people["Alice"].replace("-", ""))
    assert await root.names(q=q) == found


@swept(
    ("query", "found"),
    [
        ({"status": "active"}, ["100%_小明", "Alice", "Root"]),
        ({"status": "disabled"}, ["Bob"]),
        ({"role": "admin"}, ["Root"]),
        ({"role": "support"}, ["Alice"]),
        ({"role": "nobody"}, []),
        ({"app_id": APP["app_id"]}, ["100%_小明", "Alice", "Root"]),
        ({"app_id": OTHER_APP["app_id"]}, ["Bob", "Alice"]),
        ({"app_id": "wx-none"}, []),
        ({"q": "o", "status": "active"}, ["Root"]),
        ({"q": "o", "status": "active", "app_id": OTHER_APP["app_id"]}, []),
        ({"status": "active", "role": "editor", "app_id": OTHER_APP["app_id"]}, ["Alice"]),
        (
            {"q": "", "status": "", "role": "", "app_id": "", "limit": "", "cursor": ""},
            ["100%_小明", "Bob", "Alice", "Root"],
        ),
    ],
)
async def test_all_filters_of_a_search_must_match(root: Admin, people: Ids, query: Body, found: list[str]) -> None:
    assert await root.names(**query) == found


async def test_pages_list_all_users_once_while_others_are_added(stage: Stage, root: Admin) -> None:
    for number in range(6):
        await stage.login(f"person-{number}", nickname=str(number))
    first = await root.read("/users", limit=3)
    await stage.login("late", nickname="late")
    second = await root.read("/users", limit=3, cursor=first["next_cursor"])
    third = await root.read("/users", limit=3, cursor=second["next_cursor"])
    assert [[user["nickname"] for user in page["items"]] for page in (first, second, third)] == [
        ["5", "4", "3"],
        ["2", "1", "0"],
        ["Root"],
    ]
    assert third["next_cursor"] is None
    assert (await root.read("/users", limit=8))["next_cursor"] is None, "a page that ends with the last user"
    add = "INSERT INTO users (id, created_at) SELECT gen_random_uuid(), now() FROM generate_series(1, 250)"
    await stage.rows.execute(add)
    assert [len(await root.names(**limit)) for limit in ({}, {"limit": 200}, {"limit": 1})] == [50, 200, 1]


# One user.


async def test_a_user_is_shown_with_all_identities_and_open_sessions(stage: Stage, root: Admin, people: Ids) -> None:
    alice = (await root.ask("GET", f"/users/{people['Alice']}")).json()
    listed = (await root.read("/users", q="alice"))["items"]
    assert listed == [
        {
            "id": people["Alice"],
            "attributes": {},
            "erase_at": None,
            "identities": [
                {"app_id": APP["app_id"], "openid": "openid-a1-ali"},
                {"app_id": OTHER_APP["app_id"], "openid": "openid-b2-ali"},
            ],
            "unionid": "union-ali",
            **dict.fromkeys(PROFILE_FIELDS),
            "nickname": "Alice",
            "phone": None,
            "roles": ["editor", "support"],
            "status": "active",
            "created_at": "2026-11-20T08:00:00Z",
            "last_login_at": "2026-11-20T08:00:00Z",
            "last_seen_at": "2026-11-20T08:00:00Z",
            "external_id": "10023",
            "phone_verified": None,
        }
    ]
    sessions = alice.pop("sessions")
    assert (alice.pop("consents"), alice.pop("ended_sessions")) == ([], [])
    assert [alice] == listed
    assert [session.pop("app_id") for session in sessions] == [OTHER_APP["app_id"], APP["app_id"]]
    for session in sessions:
        assert UUID(session.pop("id")).version == 7
        assert session == {
            "client_id": None,
            **dict.fromkeys(("client", "resource", "scopes")),
            "device": None,
            "ip": "127.0.0.1",
            "opened": {"ip": "127.0.0.1", "device": None},
            "created_at": "2026-11-20T08:00:00Z",
            "last_used_at": "2026-11-20T08:00:00Z",
            "expires_at": "2026-12-20T08:00:00Z",
        }
    stage.clock.advance(minutes=1)
    root.answer = (await stage.refresh(root.answer)).json()
    stage.clock.advance(days=30, minutes=-1)
    root.answer = (await stage.refresh(root.answer)).json()
    assert (await root.ask("GET", f"/users/{people['Alice']}")).json()["sessions"] == []


async def test_the_answers_are_of_the_documented_form_and_not_to_be_cached(root: Admin) -> None:
    for path, form in (("/users", UsersAnswer), (f"/users/{root.id}", UserDetailAnswer)):
        answer = await root.ask("GET", path)
        assert answer.headers["cache-control"] == "no-store"
        assert TypeAdapter(form).validate_json(answer.content).keys() == answer.json().keys()
    events = await root.ask("GET", "/events")
    assert events.headers["cache-control"] == "no-store"
    assert Items[EventFields].model_fields.keys() == events.json().keys()
    assert all(EventFields.model_fields.keys() == event.keys() for event in events.json()["items"])
    assert (await root.ask("DELETE", f"/users/{root.id}/sessions")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("status", ["active", "disabled"])
async def test_a_change_sets_its_fields(stage: Stage, root: Admin, status: str) -> None:
    user_id = (await stage.login("alice", nickname="Alice"))["user"]["id"]
    before = await root.change(user_id, roles=["editor"])
    assert await root.change(user_id, status=None, roles=None) == before
    changed = await root.change(user_id, status=status, roles=["x", "y", "x"])
    ended = [{**each, "ended_at": "2026-11-20T08:00:00Z", "ended_reason": "banned"} for each in before["sessions"]]
    sessions, ended = ([], ended) if status == "disabled" else (before["sessions"], [])
    assert changed == {**before, "status": status, "roles": ["x", "y"], "sessions": sessions, "ended_sessions": ended}
    assert (await root.ask("GET", f"/users/{user_id}")).json() == changed


async def test_a_ban_ends_every_session_at_once_and_lifting_it_brings_none_back(stage: Stage, root: Admin) -> None:
    sessions = [await stage.login("alice"), await stage.login("alice")]
    user_id = sessions[0]["user"]["id"]

    assert (await root.change(user_id, status="disabled"))["sessions"] == []
    for session in sessions:
        problem_of(await stage.me(session), "invalid_token", 401)
        problem_of(await stage.refresh(session), "account_disabled", 403)
    problem_of(await stage.login.ask("alice"), "account_disabled", 403)

    await root.change(user_id, status="active")
    for session in sessions:
        problem_of(await stage.me(session), "invalid_token", 401)
        problem_of(await stage.refresh(session), "session_revoked", 400)
    again = await stage.login("alice")
    assert (again["is_new_user"], again["user"]["id"]) == (False, user_id)


async def test_a_login_at_the_moment_of_a_ban_leaves_no_session_behind(stage: Stage, root: Admin) -> None:
    user_id = (await stage.login("alice"))["user"]["id"]
    logins = [stage.login.ask("alice") for _ in range(8)]
    ban = root.change(user_id, status="disabled")
    *answers, _ = await asyncio.gather(*logins[:4], ban, *logins[4:], root.change(user_id, status="disabled"))
    assert {answer.status_code for answer in answers if isinstance(answer, httpx.Response)} <= {200, 403}
    assert (await root.change(user_id, status="active"))["sessions"] == []


async def test_roles_are_in_the_next_access_token(stage: Stage, root: Admin) -> None:
    alice = await stage.login("alice")
    await root.change(alice["user"]["id"], roles=["editor"])
    assert (await stage.me(alice)).json()["roles"] == ["editor"]
    refreshed = (await stage.refresh(alice)).json()
    assert refreshed["user"]["roles"] == ["editor"]
    verified = await stage.client.get("/v1/verify", params={"role": "editor"}, headers=bearer(refreshed))
    assert verified.status_code == 200


async def test_an_erased_user_is_gone_with_their_address(stage: Stage, root: Admin) -> None:
    alice = await stage.login("alice")
    user_id = alice["user"]["id"]
    await root.change(user_id, roles=["editor"])
    assert (await root.ask("DELETE", f"/users/{user_id}")).status_code == 204
    problem_of(await stage.me(alice), "invalid_token", 401)
    problem_of(await root.ask("DELETE", f"/users/{user_id}"), "not_found", 404)
    assert await stage.number("identities") == 1
    assert [(event["type"], event["actor"], event["ip"], event["data"]) for event in await root.events()] == [
        ("user.erased", root.id, "127.0.0.1", {"former_ids": []}),
        ("session.ended", root.id, "127.0.0.1", {"session_ids": [alice["session_id"]], "reason": "erased"}),
        ("user.roles_changed", root.id, None, {"before": [], "after": ["editor"]}),
    ]
    assert (await stage.login("alice"))["is_new_user"] is True


# The last administrator.

ENDS = [
    ("PATCH", {"json": {"status": "disabled"}}),
    ("PATCH", {"json": {"roles": []}}),
    ("PATCH", {"json": {"roles": ["editor"], "status": "active"}}),
    ("DELETE", {}),
]


@pytest.mark.parametrize(("method", "body"), ENDS)
async def test_any_administrator_but_the_last_is_removed(stage: Stage, root: Admin, method: str, body: Body) -> None:
    other = await make_admin(root.client, stage.rows, await stage.login("other"))
    banned = (await stage.login("banned"))["user"]["id"]
    await stage.rows.execute("UPDATE users SET roles = '{admin}', status = 'disabled' WHERE id = $1", banned)
    assert (await root.ask(method, f"/users/{other.id}", **body)).status_code in (200, 204)
    problem_of(await root.ask(method, f"/users/{root.id}", **body), "last_admin", 409)
    user = (await root.ask("GET", f"/users/{root.id}")).json()
    assert (user["status"], user["roles"], len(user["sessions"])) == ("active", ["admin"], 1)
    assert await root.events(user_id=root.id) == []
    assert (await root.ask(method, f"/users/{banned}", **body)).status_code in (200, 204)
    assert (await root.change(root.id, roles=["editor", "admin"], status="active"))["roles"] == ["editor", "admin"]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "body"), ENDS)
async def test_of_administrators_who_remove_each_other_at_once_one_stays(
    stage: Stage, root: Admin, method: str, body: Body
) -> None:
    admins = [root, *[await make_admin(root.client, stage.rows, await stage.login(f"admin-{n}")) for n in range(3)]]
    victims = [*admins[1:], admins[0]]
    answers = await asyncio.gather(
        *(admin.ask(method, f"/users/{victim.id}", **body) for admin, victim in zip(admins, victims, strict=True))
    )
    assert {answer.status_code for answer in answers} <= {200, 204, 401, 403, 404, 409}
    assert await stage.number("users WHERE 'admin' = ANY (roles) AND status = 'active'") >= 1


# The audit trail.


@pytest.mark.requirement("asvs-16.3.1")
async def test_every_change_is_an_event_with_actor_user_time_and_address(stage: Stage, root: Admin) -> None:
    first = await stage.login("alice")
    user_id, sessions = first["user"]["id"], [first["session_id"], (await stage.login("alice"))["session_id"]]
    stage.clock.advance(minutes=1)
    await root.change(user_id, roles=["editor", "admin"])
    await root.change(user_id, status="disabled", roles=["editor"])
    await root.change(user_id, status="active")
    last = (await stage.login("alice"))["session_id"]
    await root.ask("DELETE", f"/users/{user_id}/sessions")
    events = await root.events()
    assert [(event["type"], event["data"]) for event in events] == [
        ("session.ended", {"reason": "administrator", "session_ids": [last]}),
        ("user.unbanned", {}),
        ("session.ended", {"reason": "banned", "session_ids": sessions}),
        ("user.roles_changed", {"before": ["editor", "admin"], "after": ["editor"]}),
        ("user.banned", {}),
        ("user.roles_changed", {"before": [], "after": ["editor", "admin"]}),
    ]
    for event in events:
        assert UUID(event.pop("id")).version == 7
        del event["type"], event["data"]
        who = {"actor": root.id, "user_id": user_id, "app_id": None, "ip": "127.0.0.1"}
        assert event == {"at": "2026-11-20T08:01:00Z", **who}


async def test_a_change_without_effect_records_no_event(root: Admin, login: LogIn) -> None:
    user_id = (await login("alice"))["user"]["id"]
    await root.change(user_id, roles=["editor", "support"])
    for change in ({"status": "active"}, {"roles": ["support", "editor", "support"]}):
        assert (await root.change(user_id, **change))["roles"] == ["editor", "support"]
    await root.change(user_id, status="disabled")
    await root.change(user_id, status="disabled")
    await root.ask("DELETE", f"/users/{user_id}/sessions")
    assert [event["type"] for event in await root.events()] == ["session.ended", "user.banned", "user.roles_changed"]


async def test_simultaneous_changes_are_each_recorded_as_they_happened(root: Admin, login: LogIn) -> None:
    user_id = (await login("alice"))["user"]["id"]
    # Each change keeps the role `admin`, because changes that take it away wait for each other anyway.
    await asyncio.gather(*(root.change(user_id, roles=["admin", f"r{n}"]) for n in range(8)))
    events = [event["data"] for event in reversed(await root.events())]
    assert [change["before"] for change in events] == [[], *[change["after"] for change in events[:-1]]]


async def two_users_of_alice(login: LogIn) -> tuple[str, str]:
    """Return the user with Alice's unionid, and her user in an app for which WeChat does not send the unionid yet."""
    holder, former = await login("alice", unionid="union-alice"), await login("alice", app=OTHER_APP)
    return holder["user"]["id"], former["user"]["id"]


async def test_linking_leaves_an_administrator(stage: Stage) -> None:
    holder, former = await two_users_of_alice(stage.login)
    await set_roles(stage.rows, "admin", user_id=former)
    await stage.rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1::text::uuid", holder)
    assert (await stage.login.ask("alice", app=OTHER_APP, unionid="union-alice")).status_code == 200
    assert await stage.rows.fetch("SELECT id::text, roles, status FROM users") == [(holder, ["admin"], "active")]


async def test_a_ban_follows_a_person_and_leaves_an_event(stage: Stage, root: Admin) -> None:
    holder, former = await two_users_of_alice(stage.login)
    await set_roles(stage.rows, "admin", user_id=holder)  # Root is an administrator too
    await stage.rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1::text::uuid", former)
    problem_of(await stage.login.ask("alice", app=OTHER_APP, unionid="union-alice"), "account_disabled", 403)
    kinds = ("user.merged", "user.banned", "user.roles_changed", "session.ended")
    told = await recorded(stage.rows, "type, actor, user_id", BESIDE_LOGINS)
    assert told == [(kind, "system", holder) for kind in kinds]


async def test_the_answer_names_the_parameters_that_there_are(root: Admin) -> None:
    answer = await root.ask("GET", "/events", params={"ip": "203.0.113.7", "limit": 1})
    assert problem_of(answer, "invalid_request", 422)["errors"] == [
        {"field": "ip", "message": "Must be one of actor, cursor, limit, since, type, until, user_id"}
    ]
