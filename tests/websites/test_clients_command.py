"""`wxauth clients add` with the options of a site: accepted and refused."""

import json
from asyncio import to_thread
from pathlib import Path

import pytest

from tests.fakes import APP, service_env
from tests.processes import Command, make_command, run
from tests.sweeps import swept
from tests.world import CALLBACK, Rows
from wxauth.server.clients.clients import NAME_RULE
from wxauth.server.dev.wechat import ACCOUNT, APPS, MOBILE_APP, WEBSITE

pytestmark = pytest.mark.process


@pytest.fixture
def clients(database_url: str, tmp_path: Path) -> Command:
    env = {"WXAUTH_DATABASE_URL": database_url, "WXAUTH_AUDIENCE": "wxauth"}
    return make_command("clients", cwd=tmp_path, env=env)


async def test_a_site_is_added_with_all_that_it_was_given(clients: Command) -> None:
    added = await clients(
        *("add", "shop", "--json", "--redirect-uri", CALLBACK, "--redirect-uri", "http://127.0.0.1/callback"),
        *("--logout-uri", "https://shop.example.com/", "--device", "--app", "wx1a2b3c4d5e6f7a8b", "--title", "小店"),
        *("--scope", "roles", "--scope", "openid", "--near", "--user-code", "--email-domain", "example.com"),
        *("--id-token-alg", "ES256", "--backchannel-logout-uri", "http://127.0.0.1/logout"),
    )
    assert (added.returncode, added.stderr) == (0, "")
    credentials = json.loads(added.stdout)
    assert credentials.keys() == {"client_id", "client_secret", "scopes"}
    assert credentials["scopes"] == ["openid", "roles"]
    assert len(credentials["client_secret"]) == 43
    (listed,) = json.loads((await clients("list", "--json")).stdout)
    assert listed.pop("created_at")
    assert listed == {
        "client_id": "shop",
        "title": "小店",
        "scopes": ["openid", "roles"],
        "is_public": False,
        "device": True,
        "redirect_uris": [CALLBACK, "http://127.0.0.1/callback"],
        "logout_uris": ["https://shop.example.com/"],
        "backchannel_logout_uri": "http://127.0.0.1/logout",
        "app_id": "wx1a2b3c4d5e6f7a8b",
        "account_app_id": None,
        "website_app_id": None,
        "link": False,
        "near": True,
        "user_code": True,
        "email_domain": "example.com",
        "sso": False,
        "phone_id_token": False,
        "pkce": "required",
        "id_token_alg": "ES256",
        "claims": None,
    }


async def test_a_site_shares_the_login_of_browsers_if_no_phone_has_to_be_near(clients: Command) -> None:
    assert (await clients("add", "shop", "--redirect-uri", CALLBACK, "--sso")).returncode == 0
    (listed,) = json.loads((await clients("list", "--json")).stdout)
    assert listed["sso"] is True
    for refused in (("set", "shop", "--near"), ("add", "tv", "--device", "--sso")):
        answer = await clients(*refused)
        assert (answer.returncode, "--sso" in answer.stderr) == (2, True), answer.stderr
    assert (await clients("set", "shop", "--no-sso", "--near")).returncode == 0


async def test_a_site_gets_claims_of_its_own_and_loses_them_by_an_empty_one(clients: Command) -> None:
    async def claims() -> object:
        (listed,) = json.loads((await clients("list", "--json")).stdout)
        return listed["claims"]

    given = ("--claim", "tier=$attributes.tier", "--claim", 'team={"id": 7}', "--claim", "n=1", "--claim", "a=b=c")
    assert (await clients("add", "shop", "--redirect-uri", CALLBACK, *given)).returncode == 0
    assert await claims() == {"tier": "$attributes.tier", "team": {"id": 7}, "n": 1, "a": "b=c"}
    for refused in ("sub=x", "roles=admin", "x=$nickname", "=x", "tier", f"x={'y' * 1024}"):
        answer = await clients("set", "shop", "--claim", refused)
        assert (answer.returncode, "--claim" in answer.stderr) == (2, True), refused
    service = await clients("add", "billing", "--claim", "tier=1")
    assert (service.returncode, "--claim" in service.stderr) == (2, True)
    assert (await clients("set", "shop", "--title", "Shop")).returncode == 0
    assert await claims() == {"tier": "$attributes.tier", "team": {"id": 7}, "n": 1, "a": "b=c"}
    assert (await clients("set", "shop", "--claim", "tier=1")).returncode == 0
    assert await claims() == {"tier": 1}
    assert (await clients("set", "shop", "--claim", "")).returncode == 0
    assert await claims() is None


async def test_pkce_may_be_optional_for_a_site_with_a_secret(clients: Command) -> None:
    async def pkce() -> str:
        (listed,) = json.loads((await clients("list", "--json")).stdout)
        return str(listed["pkce"])

    assert (await clients("add", "shop", "--redirect-uri", CALLBACK, "--no-pkce")).returncode == 0
    assert await pkce() == "optional"
    assert (await clients("set", "shop", "--title", "Shop")).returncode == 0
    assert await pkce() == "optional"
    assert (await clients("set", "shop", "--pkce")).returncode == 0
    assert await pkce() == "required"
    for others in (("page", "--redirect-uri", CALLBACK, "--public"), ("billing",)):
        answer = await clients("add", *others, "--no-pkce")
        assert (answer.returncode, "--no-pkce" in answer.stderr) == (2, True), answer.stderr


async def test_a_site_has_the_scopes_openid_and_profile_and_its_name_as_title_by_default(clients: Command) -> None:
    assert (await clients("add", "shop", "--redirect-uri", CALLBACK)).returncode == 0
    (listed,) = json.loads((await clients("list", "--json")).stdout)
    assert (listed["title"], listed["scopes"], listed["app_id"]) == ("shop", ["openid", "profile"], None)


async def test_a_site_has_the_rights_of_siblings_only_by_their_scopes(clients: Command) -> None:
    for name, scopes in (("shop", ()), ("office", ("users", "openid", "introspect"))):
        asked = [argument for scope in scopes for argument in ("--scope", scope)]
        assert (await clients("add", name, "--redirect-uri", CALLBACK, *asked)).returncode == 0
    listed = {site["client_id"]: site["scopes"] for site in json.loads((await clients("list", "--json")).stdout)}
    assert listed == {"shop": ["openid", "profile"], "office": ["introspect", "users", "openid"]}


async def test_a_public_client_has_no_secret(clients: Command, rows: Rows) -> None:
    added = await clients("add", "page", "--json", "--public", "--redirect-uri", CALLBACK)
    assert json.loads(added.stdout) == {
        "client_id": "page",
        "client_secret": None,
        "scopes": ["openid", "profile"],
    }
    shown = await clients("add", "other", "--public", "--redirect-uri", CALLBACK)
    assert shown.stdout.split() == ["client_id", "other", "scopes", "openid,profile"]
    assert "no secret" in shown.stderr
    assert "没有密钥" in shown.stderr


async def test_a_site_takes_its_name_and_gives_it_back_like_any_service_client(clients: Command, rows: Rows) -> None:
    assert (await clients("add", "shop")).returncode == 0
    again = await clients("add", "shop", "--device")
    assert (again.returncode, "shop exists already" in again.stderr) == (1, True)
    assert await rows.fetchval("SELECT device FROM clients") is False

    await clients("remove", "shop")
    await clients("add", "shop", "--device")
    assert (await clients("remove", "shop")).returncode == 0
    assert await rows.fetchval("SELECT count(*) FROM clients") == 0
    events = await rows.fetch("SELECT type, actor, data->>'name' FROM events ORDER BY id")
    expected = ["client.added", "client.removed"] * 2
    assert [tuple(event) for event in events] == [(kind, "operator", "shop") for kind in expected]


async def test_given_fields_of_a_site_are_changed_and_an_empty_text_clears_a_field(clients: Command) -> None:
    await clients("add", "shop", "--redirect-uri", CALLBACK, "--app", "wx1a2b3c4d5e6f7a8b", "--near")
    done = await clients(
        *("set", "shop", "--scope", "phone", "--scope", "users", "--title", "小店", "--device", "--no-near"),
        *("--app", "", "--redirect-uri", "https://shop.example.com/new"),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "scopes of shop: users, phone\n", "")
    (listed,) = json.loads((await clients("list", "--json")).stdout)
    assert (listed["title"], listed["device"], listed["near"], listed["app_id"]) == ("小店", True, False, None)
    assert listed["redirect_uris"] == ["https://shop.example.com/new"]
    assert listed["id_token_alg"] == "RS256"
    done = await clients(
        *("set", "shop", "--title", "", "--redirect-uri", "", "--email-domain", "example.com"),
        *("--id-token-alg", "ES256", "--backchannel-logout-uri", "http://127.0.0.1/logout"),
    )
    assert done.returncode == 0, done.stderr
    (listed,) = json.loads((await clients("list", "--json")).stdout)
    assert (listed["title"], listed["redirect_uris"], listed["email_domain"]) == ("shop", [], "example.com")
    assert listed["id_token_alg"] == "ES256"


async def test_a_site_names_only_apps_of_the_right_kinds(clients: Command, rows: Rows) -> None:
    page, computer, mobile = ACCOUNT["app_id"], WEBSITE["app_id"], MOBILE_APP["app_id"]
    apps = {"WXAUTH_APPS": json.dumps([*APPS, ACCOUNT, MOBILE_APP])}
    await rows.execute(
        "INSERT INTO apps (app_id, created_at, fields, secrets) VALUES ($1, now(), $2, $3)",
        *(computer, json.dumps({"kind": "website"}), bytes(64)),
    )
    added = await clients("add", "shop", "--redirect-uri", CALLBACK, "--account", page, "--website", computer, **apps)
    assert added.returncode == 0, added.stderr
    for option, app_id in (
        *(("--app", page), ("--app", mobile), ("--account", computer), ("--account", APPS[0]["app_id"])),
        *(("--account", "wx0000000000000000"), ("--website", page), ("--website", "wx0000000000000000")),
    ):
        for command in (("add", "other", "--redirect-uri", CALLBACK), ("set", "shop")):
            refused = await clients(*command, option, app_id, **apps)
            assert (refused.returncode, f"Invalid value for {option}" in refused.stderr) == (2, True), refused.stderr
    (listed,) = json.loads((await clients("list", "--json")).stdout)
    assert (listed["app_id"], listed["account_app_id"], listed["website_app_id"]) == (None, page, computer)
    assert (await clients("set", "shop", "--account", "", "--website", "")).returncode == 0
    (listed,) = json.loads((await clients("list", "--json")).stdout)
    assert (listed["account_app_id"], listed["website_app_id"]) == (None, None)


async def test_a_change_to_an_invalid_client_is_a_usage_error(clients: Command) -> None:
    await clients("add", "page", "--public", "--redirect-uri", CALLBACK)
    await clients("add", "billing")
    before = (await clients("list", "--json")).stdout
    for name, option, *more in (
        ("page", "--public", "--device"),
        ("page", "--scope", "--scope", "users"),
        ("page", "--redirect-uri", "--redirect-uri", ""),
        ("page", "--redirect-uri", "--redirect-uri", "http://shop.example.com/"),
        ("billing", "--title", "--title", "Billing"),
        ("billing", "--scope", "--scope", "openid"),
    ):
        refused = await clients("set", name, *more)
        assert (refused.returncode, f"Invalid value for {option}" in refused.stderr) == (2, True), refused.stderr
    assert (await clients("list", "--json")).stdout == before


async def test_a_public_client_is_given_no_secret(clients: Command, rows: Rows) -> None:
    await clients("add", "page", "--public", "--redirect-uri", CALLBACK)
    before = await rows.fetch("SELECT * FROM clients")
    refused = await clients("secret", "page")
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (1, "", 1)
    assert "page is public, and has no secret" in refused.stderr
    assert await rows.fetch("SELECT * FROM clients") == before


REFUSED = {
    "a public name could show anybody's code": ["--public", "--device"],
    "a scope that is none": ["--device", "--scope", "everything"],
    "a public one with a sibling's scope": ["--public", "--redirect-uri", CALLBACK, "--scope", "introspect"],
    "nothing that makes a site": ["--title", "Shop"],
    "a public one that goes nowhere": ["--public"],
    "a way out without a way in": ["--device", "--logout-uri", CALLBACK],
    "an empty title": ["--device", "--title", ""],
    "a title with a line in it": ["--device", "--title", "a\nb"],
    "a long title": ["--device", "--title", "a" * 65],
    "a title that is no UTF-8": ["--device", "--title", "\udcff"],
    "no domain": ["--device", "--email-domain", "example"],
    "an address for a domain": ["--device", "--email-domain", "a@example.com"],
    "no app_id": ["--device", "--app", "wx 1"],
    "the console's scope": ["--public", "--redirect-uri", CALLBACK, "--scope", "wxauth:admin"],
}
BAD_URIS = [
    "http://shop.example.com/callback",
    "https://shop.example.com/callback#part",
    "https://user@shop.example.com/",
    "https://*.example.com/callback",
    "https://shop.example.com/*",
    "https://shop.example.com\\@evil.example/",
    "https://",
    "shop.example.com/callback",
    "javascript:alert(1)",
    "com.example.shop:/callback",
    "https://shop.example.com/call back",
    "https://shop.example.com:0/",
    "https://shop.example.com:99999/",
    "https://商店.example.com/",
    "http://127.0.0.1.example.com/",
    "",
]


@swept("options", REFUSED.values(), ids=REFUSED)
async def test_a_site_with_wrong_options_is_not_added(clients: Command, rows: Rows, options: list[str]) -> None:
    refused = await clients("add", "shop", *options)
    assert refused.returncode == 2, refused.stdout
    assert await rows.fetchval("SELECT count(*) FROM clients") == 0


@swept("option", ["--redirect-uri", "--logout-uri"])
@swept("uri", BAD_URIS)
@pytest.mark.no_database
async def test_an_unsafe_redirect_uri_is_refused(clients: Command, option: str, uri: str) -> None:
    refused = await clients("add", "shop", "--redirect-uri", CALLBACK, option, uri)
    assert (refused.returncode, option in refused.stderr) == (2, True)


@pytest.mark.parametrize("name", ["wxauth", "wxauth-admin", "wxauthorize", "wx1a2b3c4d5e6f7a8b", APP["app_id"]])
@pytest.mark.no_database
async def test_no_site_is_named_like_us_or_an_app(clients: Command, name: str) -> None:
    refused = await clients("add", name, "--device")
    assert (refused.returncode, "NAME" in refused.stderr) == (2, True)


@pytest.mark.parametrize("command", ["add", "set", "secret", "remove"])
@pytest.mark.no_database
async def test_a_page_of_ours_is_not_an_operators(clients: Command, command: str) -> None:
    refused = await clients(command, "wxauth-admin", *(("--scope", "users") if command == "set" else ()))
    assert (refused.returncode, NAME_RULE in " ".join(refused.stderr.split())) == (2, True)


async def test_no_site_is_made_with_the_name_of_the_audience(clients: Command) -> None:
    for command in (("add", "shop", "--device"), ("add", "shop", "--public", "--redirect-uri", CALLBACK)):
        refused = await clients(*command, WXAUTH_AUDIENCE="shop")
        assert (refused.returncode, "NAME" in refused.stderr, "audience" in refused.stderr) == (2, True, True)
    assert json.loads((await clients("list", "--json")).stdout) == []
    assert (await clients("add", "shop", WXAUTH_AUDIENCE="shop")).returncode == 0, "a service gets no tokens"
    refused = await clients("set", "shop", "--device", WXAUTH_AUDIENCE="shop")
    assert (refused.returncode, "audience" in refused.stderr) == (2, True)
    assert (await clients("set", "shop", "--device", WXAUTH_AUDIENCE="other")).returncode == 0


@pytest.mark.parametrize("audience", ["shop", "wxauth"])
async def test_serve_refuses_to_start_where_a_site_is_named_like_the_audience(
    clients: Command, database_url: str, tmp_path: Path, audience: str
) -> None:
    await clients("add", "shop", "--device")
    nowhere = "256.0.0.1"  # where nobody can listen: that far it comes
    env = service_env(database_url, audience=audience, host=nowhere)
    refused = await to_thread(run, "serve", cwd=tmp_path, env=env)
    assert refused.returncode == 1
    named, other = ("WXAUTH_AUDIENCE", "WXAUTH_HOST") if audience == "shop" else ("WXAUTH_HOST", "WXAUTH_AUDIENCE")
    assert named in refused.stderr
    assert other not in refused.stderr
