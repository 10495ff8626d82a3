"""The audit trail's events about users, identities, profiles and sessions, and the names in their data."""

import re
from pathlib import Path
from typing import Any, Final

from tests.docs import ROOT, both_languages, guide
from tests.fakes import APP, OTHER_APP
from tests.world import Admin, Rows, Stage, bearer, behind, leave, recorded
from wxauth.core.trail import SENT_TO_SIBLINGS, SYSTEM, EventType
from wxauth.sessions.queries import MAX_SESSIONS_IN_EVENT, EndReason, end_sessions

WORD: Final = re.compile(r"`([a-z_.]+)`")


async def trail(stage: Stage, kind: str = "%") -> list[tuple[Any, ...]]:
    """Return type, actor, user, app and data of the events whose type matches this pattern."""
    return await recorded(stage.rows, "type, actor, user_id, app_id, data", "type LIKE $1", kind)


async def ends(stage: Stage) -> list[tuple[str, list[str]]]:
    return [(event[4]["reason"], event[4]["session_ids"]) for event in await trail(stage, "session.ended")]


# New users and identities.


async def test_a_new_user_and_each_further_app_are_recorded_once(stage: Stage) -> None:
    user_id = (await stage.login(unionid="union-alice", nickname="Al"))["user"]["id"]
    await stage.login(unionid="union-alice")
    for _ in range(2):
        await stage.login(unionid="union-alice", nickname="Alice", app=OTHER_APP)
    assert await trail(stage) == [
        ("user.created", user_id, user_id, APP["app_id"], {}),
        ("identity.added", user_id, user_id, OTHER_APP["app_id"], {}),
        ("user.profile_changed", user_id, user_id, OTHER_APP["app_id"], {"fields": ["nickname"]}),
    ]


async def test_a_merge_records_each_identity_and_the_changed_profile(stage: Stage) -> None:
    former = (await stage.login(nickname="Al"))["user"]["id"]
    holder = (await stage.login(unionid="union-alice", app=OTHER_APP))["user"]["id"]
    await stage.login(unionid="union-alice")
    assert (await trail(stage))[2:] == [
        ("user.merged", "system", holder, None, {"former_id": former}),
        ("identity.added", "system", holder, APP["app_id"], {}),
        ("user.profile_changed", "system", holder, None, {"fields": ["nickname"]}),
    ]


# Nicknames and pictures.


async def test_a_login_records_a_name_or_picture_only_if_it_has_changed(stage: Stage) -> None:
    await stage.login(nickname="Al", avatar_url="https://example.com/1.png")
    for fields in ({"nickname": "Al"}, {"nickname": "Al", "avatar_url": "https://example.com/1.png"}):
        await stage.login(**fields)
    assert await trail(stage, "user.profile_changed") == []
    await stage.login(nickname="Alice", avatar_url="https://example.com/1.png")
    await stage.login(nickname="Alice", avatar_url="https://example.com/2.png")
    user_id = (await stage.login(nickname="Al", avatar_url="https://example.com/1.png"))["user"]["id"]
    assert await trail(stage, "user.profile_changed") == [
        ("user.profile_changed", user_id, user_id, APP["app_id"], {"fields": fields})
        for fields in (["nickname"], ["avatar_url"], ["nickname", "avatar_url"])
    ]


async def test_two_simultaneous_logins_each_record_their_change_of_the_name(stage: Stage) -> None:
    """The login that waits reads the row as the other login has left it, not as it was at the beginning."""
    await stage.login(nickname="Al")
    waited = await behind(stage.rows, stage.login(nickname="Al"), "UPDATE users SET nickname = 'Alice'")
    assert waited["user"]["nickname"] == "Al"
    assert [event[4] for event in await trail(stage, "user.profile_changed")] == [{"fields": ["nickname"]}]


async def test_each_change_by_a_person_is_recorded(stage: Stage) -> None:
    answer = await stage.login(nickname="Al")
    for change in ({"nickname": "Al"}, {"nickname": "Alice", "avatar_url": None}, {"nickname": None}):
        assert (await stage.change(answer, **change)).status_code == 200
    user_id = answer["user"]["id"]
    changed = ("user.profile_changed", user_id, user_id, APP["app_id"], {"fields": ["nickname"]})
    assert await trail(stage, "user.profile_changed") == [changed] * 2


# Sessions.


async def test_each_end_of_a_session_is_recorded_with_its_reason(stage: Stage) -> None:
    by_token, by_bearer, own, other, left = [await stage.login() for _ in range(5)]
    for _ in range(2):
        await stage.client.post("/v1/logout", json={"refresh_token": by_token["refresh_token"]})
    await stage.client.post("/v1/logout", headers=bearer(by_bearer))
    for session in (other, own, own):
        await stage.client.delete(f"/v1/me/sessions/{session['session_id']}", headers=bearer(own))
    assert await ends(stage) == [
        ("signed_out", [by_token["session_id"]]),
        ("signed_out", [by_bearer["session_id"]]),
        ("signed_out_elsewhere", [other["session_id"]]),
        ("signed_out", [own["session_id"]]),
    ]
    user_id = left["user"]["id"]
    assert {event[:4] for event in await trail(stage, "session.ended")} == {
        ("session.ended", user_id, user_id, APP["app_id"])
    }


async def test_an_expired_session_is_not_recorded(stage: Stage) -> None:
    old, new = await stage.login(), await stage.login()
    await stage.rows.execute("UPDATE sessions SET expires_at = created_at WHERE id = $1::text::uuid", old["session_id"])
    await stage.client.post("/v1/logout", json={"refresh_token": old["refresh_token"]})
    await leave(stage.client, new)
    assert await ends(stage) == [("erased", [new["session_id"]])]


async def test_a_thousand_sessions_fit_in_one_event(stage: Stage) -> None:
    answer = await stage.login()
    await stage.rows.execute(
        """
        INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at)
        SELECT gen_random_uuid(), user_id, app_id, openid, created_at, last_used_at, expires_at
          FROM sessions, generate_series(1, $1)
        """,
        2 * MAX_SESSIONS_IN_EVENT,
    )
    ids = [row["id"] for row in await stage.rows.fetch("SELECT id::text FROM sessions")]
    async with stage.services.database.begin() as transaction:
        await end_sessions(
            transaction, answer["user"]["id"], reason=EndReason.ADMINISTRATOR, by=SYSTEM, now=stage.services.clock()
        )
    events = [session_ids for _, session_ids in await ends(stage)]
    assert sorted(map(len, events)) == [1, MAX_SESSIONS_IN_EVENT, MAX_SESSIONS_IN_EVENT]
    assert sorted(session_id for session_ids in events for session_id in session_ids) == sorted(ids)


# Names in events' data.


def documented(page: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the names in the data of each type of event, for the events that services get and for the audit trail."""
    text = page.read_text(encoding="utf-8")
    found: list[dict[str, set[str]]] = []
    for table in re.findall(r"\| type \| `data` \|.*\n\|---\|---\|---\|\n((?:\|.*\n)+)", text):
        rows = [re.split(r" *\| *", row)[1:] for row in table.splitlines()]
        found.append(
            {
                kind: {name for part in re.split("[;；]", row[1]) for name in WORD.findall(re.split("[:：]", part)[0])}
                for row in rows
                for kind in WORD.findall(row[0])
            }
        )
    sent, trail = found
    return sent, trail


@both_languages
def test_the_guide_has_the_data_of_every_type(language: str) -> None:
    page = guide("events", language)
    sent = {kind: set(names) for kind, names in SENT_TO_SIBLINGS.items()}
    further: dict[str, set[str]] = {kind: {*kind.data} - sent.get(kind, set()) for kind in EventType}
    recorded = {kind: names for kind, names in further.items() if names or kind not in sent}
    wrong = [
        f"the row of {kind} must be removed" if names is None else f"{kind} must have the data {names or 'nothing'}"
        for shown, declared in zip(documented(page), (sent, recorded), strict=True)
        for kind in sorted(shown | declared)
        if (names := declared.get(kind)) != shown.get(kind)
    ]
    assert not wrong, f"{page.relative_to(ROOT)}: {'; '.join(wrong)} (scripts/docs adds missing rows)"


async def test_the_feed_takes_the_types_that_siblings_get(rows: Rows) -> None:
    await rows.execute(
        "INSERT INTO events (id, type, at, actor) SELECT gen_random_uuid(), type, now(), 'system'"
        "  FROM unnest($1::text[]) AS each (type)",
        list(EventType),
    )
    taken = await rows.fetch("SELECT type FROM events JOIN events_unplaced ON event_id = events.id")
    assert {kind for (kind,) in taken} == set(SENT_TO_SIBLINGS), (
        "other services get the types named user.…, identity.…, consent.… or session.…, and no others: in "
        "src/wxauth/core/trail.py, rename the type, or change the third part of its row"
    )


async def test_an_event_is_logged_under_its_type_with_underscores(stage: Stage, root: Admin) -> None:
    await root.change((await stage.login())["user"]["id"], status="disabled", roles=["a"])
    assert {"user_banned", "user_roles_changed"} <= {line["event"] for line in stage.log_lines()}
