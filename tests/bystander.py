"""A user with rows in every table, which must stay unchanged while a test acts on other users.

A statement that changes too many rows would pass a test in which its user is the only one it can change.
"""

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.fakes import APP, OTHER_APP
from tests.world import Body, Rows
from wxauth.core.models import all_tables
from wxauth.core.users import PROFILE_FIELDS
from wxauth_desk.wechat import APPS
from wxauth_desk.wechat.people import openid_of, unionid_of

USER: Final = "0fffffff-0000-7000-8000-000000000001"
NAMESAKE: Final = "0fffffff-0000-7000-8000-000000000002"
"""A user without a nickname, a picture and a phone number, who shares the openids of the tests' users.

These openids belong to an app of this user's own, so they are different identities. An import has also stored the
users' unionids there, in place of openids.
"""
FORMER: Final = "0fffffff-0000-7000-8000-000000000003"
_SESSION, _SITES, _LOGIN, _APPROVED, _CLAIMED = (f"0fffffff-0000-7000-8000-00000000001{n}" for n in range(5))
_NEW, _OLD = "2097-05-06T07:08:09Z", "2001-02-03T04:05:06Z"
_UNIONID, _EARLIER = "zz-union-of-the-bystander", "zz-union-of-the-bystander-before"
_HASH = "\\x" + 32 * "0b"
_PICTURE = "bystander-picture-0000"
_OF_TESTS: Final = [app["app_id"] for app in (APP, OTHER_APP, *APPS)]
_AT_HOME = {"app_id": _OF_TESTS[0], "openid": "openid-of-the-bystander"}

_SITE_LOGIN: Final = {
    **{
        "client_id": "bystanders-shop",
        "scope": "openid",
        "redirect_uri": "https://shop.test",
        "response_mode": "query",
    },
    **{"created_at": _NEW, "claimed_at": _NEW, "expires_at": "2098-01-01Z", "kept_until": "2099-01-01Z"},
    **{"browser_ip": "::1", "browser_user_agent": "The bystander's browser"},
}
_APPROVAL: Final = {**_SITE_LOGIN, "stage": "approved", "door": "website", "granted_until": "2098-01-01Z"}

_PEOPLE: Final = ("alice", "bob", "carol", "al", "root")


def _openids_of_tests() -> set[str]:
    """Return the openids that the tests' users have, both at the fake WeChat and at the simulator."""
    apps = [*_OF_TESTS, "wxthird00000000a3"]
    return {f"openid-{app_id[-2:]}-{person}" for app_id in apps for person in _PEOPLE} | {
        openid_of(person, app_id) for app_id in apps for person in _PEOPLE
    }


def _logins_of_namesake() -> list[tuple[str, Body]]:
    """Return rows for each of the namesake's openids: a login to a browser, and an approved login to a site."""
    proof = {"authenticated_at": _NEW, "authenticated_by": "wechat_mini_program"}
    found: list[tuple[str, Body]] = []
    for number, openid in enumerate(sorted(_openids_of_tests())):
        browser, approved = (f"{NAMESAKE[:-4]}{kind}{number:03}" for kind in "bc")
        identity = {"app_id": "wxbystander00009", "openid": openid}
        hashes = {"browser_hash": _HASH, "cookie_hash": f"{_HASH[:-3]}{number:03}", "proof_id": browser}
        found += [
            ("browser_logins", {"id": browser, **hashes, **identity, **proof}),
            ("site_logins", {"id": approved, **_APPROVAL, **identity, **proof}),
        ]
    return found


def _rows() -> list[tuple[str, Body]]:
    person = {"roles": ["editor"], "status": "active", "created_at": _NEW, "last_login_at": _NEW, "unionid": _UNIONID}
    person["last_refresh_at"] = _NEW
    profile = dict.fromkeys(PROFILE_FIELDS, "The bystander")
    profile["avatar_url"] = f"https://auth.test/v1/avatars/{_PICTURE}.png"
    number = {"phone": "+8613912340000", "phone_verified_at": _NEW}
    given = {"external_id": "of-the-bystander", "attributes": {"tier": "gold"}, "consents": {"privacy": "1"}}
    session = {"user_id": USER, "generation": 0, "created_at": _NEW, "last_used_at": _NEW, "expires_at": "2099-01-01Z"}
    proof = {"authenticated_at": _NEW, "authenticated_by": "wechat_mini_program"}
    site = {"client_id": "bystanders-shop", "scope": "openid", **proof}
    identity = {"user_id": USER, "created_at": _NEW, "unionid": _UNIONID, "phone_proved_at": _NEW}
    namesake = {"app_id": "wxbystander00009", "user_id": NAMESAKE, "created_at": _OLD}
    told = {"at": _NEW, "user_id": USER, "actor": USER, "ip": "::1"}
    answered = {"asked_at": _NEW, "settled_at": _NEW}
    consent = {"document": "privacy", "version": "1", "given_at": _NEW, "app_id": _OF_TESTS[0]}
    return [
        ("users", {"id": USER, **person, **profile, **number, **given}),
        ("users", {"id": NAMESAKE, "roles": [], "status": "active", "created_at": _OLD}),
        *(("identities", {**_AT_HOME, "app_id": app_id, **identity}) for app_id in _OF_TESTS),
        *(("identities", {**namesake, "openid": openid}) for openid in sorted(_openids_of_tests())),
        *(("identities", {**namesake, "openid": unionid_of(person), "awaits_login": True}) for person in _PEOPLE),
        *(("identities", {**namesake, "app_id": app_id, "openid": "openid-of-the-namesake"}) for app_id in _OF_TESTS),
        *(("unionids", {"unionid": unionid, "user_id": USER}) for unionid in (_UNIONID, _EARLIER)),
        ("former_users", {"id": FORMER, "user_id": USER, "merged_at": _OLD}),
        ("former_external_ids", {"external_id": "formerly-of-the-bystander", "user_id": USER}),
        (
            "avatars",
            {"id": _PICTURE, "user_id": USER, "content_type": "image/png", "content": "\\x00", "created_at": _NEW},
        ),
        *(("consents", {"id": each, "user_id": each, **consent}) for each in (USER, FORMER)),
        ("sessions", {"id": _SESSION, **_AT_HOME, **session}),
        ("sessions", {"id": _SITES, **_AT_HOME, **session, **site}),
        ("website_sessions", {"client_id": "bystanders-shop", "session_id": _SITES, "browser_login_id": _LOGIN}),
        (
            "browser_logins",
            {"id": _LOGIN, "browser_hash": _HASH, "cookie_hash": _HASH, "proof_id": _LOGIN, **_AT_HOME, **proof},
        ),
        ("site_logins", {"id": _APPROVED, **_APPROVAL, **_AT_HOME, **proof}),
        (
            "site_logins",
            {"id": _CLAIMED, **_SITE_LOGIN, "stage": "claimed", "door": "scan", "claimed_session_id": _SESSION},
        ),
        *_logins_of_namesake(),
        *(
            ("phone_answers", {"code_hash": f"{_HASH[:-3]}{n:03}", **_AT_HOME, "app_id": app_id, **answered})
            for n, app_id in enumerate(_OF_TESTS)
        ),
        (
            "refusals",
            {"id": USER, "at": _NEW, "code": "phone_taken", "user_id": USER, "request_id": "of-the-bystander"},
        ),
        ("events", {"id": USER, **told, "type": "user.merged", "data": {"former_id": FORMER, "by": "operator"}}),
        ("events", {"id": FORMER, **told, "user_id": FORMER, "type": "user.merged", "data": {"by": "operator"}}),
        ("events", {"id": NAMESAKE, **told, "type": "user.split", "data": {"new_user_id": NAMESAKE}}),
        ("events", {"id": _SESSION, **told, "type": "user.authorization_revoked", "data": {"fields": ["phone"]}}),
        ("events", {"id": _SITES, **told, "type": "user.phone_removed", "data": {}}),
    ]


_IS_THEIRS: Final = "to_jsonb(t)::text ~ '0fffffff-0000-7000-8000-|bystander'"


@asynccontextmanager
async def standing_by(rows: Rows) -> AsyncIterator[None]:
    """Store the bystander's rows, and check at the end that none of them has changed.

    The test's own statements don't see these rows, because views hide them from the test's connection.
    """
    async with _without_triggers(rows):
        alike: defaultdict[tuple[str, str], list[Body]] = defaultdict(list)
        for table, row in _rows():
            alike[table, ", ".join(row)].append(row)
        for (table, columns), several in alike.items():
            values = f"SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, $1)"
            await rows.execute(f"INSERT INTO {table} ({columns}) {values}", json.dumps(several))
        before = await _seen(rows)
        for table in before:
            hiding = f"SELECT * FROM public.{table} t WHERE NOT ({_IS_THEIRS})"
            await rows.execute(f"CREATE TEMPORARY VIEW {table} AS {hiding}")
    try:
        yield
    finally:
        async with _without_triggers(rows):
            await rows.execute(f"DROP VIEW {', '.join(f'pg_temp.{table}' for table in before)}")
    assert await _seen(rows) == before


@asynccontextmanager
async def _without_triggers(rows: Rows) -> AsyncIterator[None]:
    """Switch off the triggers that notify siblings about a user, and the trigger that protects the shared schema.

    Afterwards, discard the plans, because a table's name can refer to another table or view from then on.
    """
    async with rows.transaction():
        await rows.execute("SET LOCAL session_replication_role = replica")
        yield
    await rows.execute("DISCARD PLANS")


async def _seen(rows: Rows) -> dict[str, list[str]]:
    """Return all rows of the bystander, by table."""
    found = {}
    for table in all_tables().tables:
        query = f"SELECT to_jsonb(t)::text AS row FROM public.{table} t WHERE {_IS_THEIRS} ORDER BY 1"
        found[table] = [row for (row,) in await rows.fetch(query)]
    return {table: theirs for table, theirs in found.items() if theirs}
