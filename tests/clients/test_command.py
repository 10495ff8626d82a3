"""Operators and programs call `wxauth clients`. The tests in `test_admin.py` show the rules for clients."""

import json
from asyncio import to_thread
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.clients.samples import NO_SITE, SITE
from tests.fakes import APP, LOGO, Secrets, content_of, service_env
from tests.processes import Command, free_port, make_command, run
from tests.sweeps import swept
from tests.world import CALLBACK, Body, Client, Rows, recorded
from wxauth.clients.models import SITE_SCOPE_NAMES, Scope
from wxauth.clients.rules import NAME_RULE
from wxauth_desk.wechat import ACCOUNT, APPS, MOBILE_APP, WEBSITE

pytestmark = pytest.mark.process

SHOP = ("add", "shop", "--redirect-uri", CALLBACK)
SCOPES = [*map(str, Scope), *SITE_SCOPE_NAMES]
PAGE = ("add", "page", "--redirect-uri", CALLBACK, "--public")


@dataclass(frozen=True, slots=True)
class Clients:
    """The command `wxauth clients` on this test's database."""

    run: Command

    async def __call__(self, *words: str, **env: str) -> CompletedProcess[str]:
        return await self.run(*words, **env)

    async def do(self, *words: str, **env: str) -> CompletedProcess[str]:
        done = await self.run(*words, **env)
        assert done.returncode == 0, done.stderr
        return done

    async def add(self, *words: str) -> Body:
        """Add a client, and return its credentials."""
        return json.loads((await self.do("add", *words, "--json")).stdout)

    async def refuse(self, option: str, *words: str, **env: str) -> str:
        """Check that the command fails with a usage error that names an option, and return its message."""
        refused = await self.run(*words, **env)
        assert (refused.returncode, option in refused.stderr) == (2, True), (words, refused.stderr)
        return " ".join(refused.stderr.split())

    async def fail(self, *words: str) -> str:
        """Check that the command fails with one line on standard error, and return this line."""
        failed = await self.run(*words)
        assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
        return failed.stderr

    async def listed(self) -> list[Body]:
        return json.loads((await self.run("list", "--json")).stdout)["items"]

    async def only(self, *fields: str) -> list[object]:
        """Return these fields of the only client."""
        (client,) = await self.listed()
        return [client[field] for field in fields]


@pytest.fixture
def clients(database_url: str, tmp_path: Path) -> Clients:
    return Clients(make_command("clients", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url}))


async def status_with(client: Client, credentials: Body) -> int:
    auth = (credentials["client_id"], credentials["client_secret"])
    return (await client.post("/v1/introspect", data={"token": "none"}, auth=auth)).status_code


async def test_a_client_that_is_added_may_ask_until_it_is_removed(
    clients: Clients, client: Client, secrets: Secrets, rows: Rows
) -> None:
    credentials = await clients.add("billing")
    assert credentials == {**credentials, "client_id": "billing", "scopes": ["introspect"]}
    secrets.add(credentials["client_secret"])
    assert await status_with(client, credentials) == 200
    assert "service client billing already exists" in await clients.fail("add", "billing")
    removed = await clients.do("remove", "billing")
    assert (removed.stdout, removed.stderr) == ("removed billing\n", "")
    assert await status_with(client, credentials) == 401
    assert await recorded(rows, "type, actor") == [("client.added", "operator"), ("client.removed", "operator")]


async def test_for_people_the_secret_is_in_a_table_with_a_warning(clients: Clients, rows: Rows) -> None:
    added = await clients.do("add", "billing")
    shown = dict(line.split() for line in added.stdout.splitlines())
    assert shown.keys() == {"client_id", "client_secret", "scopes"}
    assert "shown only once" in added.stderr
    assert shown["client_secret"] not in added.stderr + repr(await rows.fetch("SELECT * FROM clients"))


async def test_the_list_names_each_client_and_no_secret(clients: Clients, rows: Rows) -> None:
    assert (await clients.listed(), len((await clients("list")).stdout.splitlines())) == ([], 1)
    await rows.execute("""
        INSERT INTO clients (name, secret_hash, created_at)
        VALUES ('ledger', sha256('a'), '2026-11-20T08:00:00Z'), ('a-rather-long-name', sha256('b'), '2026-11-21Z')
    """)
    assert (await clients("list")).stdout.splitlines() == [
        "CLIENT_ID           CREATED_AT                 SCOPES",
        "a-rather-long-name  2026-11-21T00:00:00+00:00  introspect,access_token",
        "ledger              2026-11-20T08:00:00+00:00  introspect,access_token",
    ]
    assert await clients.listed() == [
        {"client_id": name, "created_at": f"{created_at}+00:00", "scopes": ["introspect", "access_token"]}
        for name, created_at in (("a-rather-long-name", "2026-11-21T00:00:00"), ("ledger", "2026-11-20T08:00:00"))
    ]


@pytest.mark.parametrize(("options", "former_works"), [((), True), (("--now",), False)], ids=["", "now"])
async def test_the_former_secret_still_works_unless_the_new_secret_replaces_it_now(
    clients: Clients, client: Client, secrets: Secrets, options: tuple[str, ...], former_works: bool
) -> None:
    former = await clients.add("billing")
    renewed = json.loads((await clients.do("secret", "billing", *options, "--json")).stdout)
    assert (renewed["client_id"], renewed["scopes"]) == ("billing", ["introspect"])
    for credentials, status in ((renewed, 200), (former, 200 if former_works else 401)):
        secrets.add(credentials["client_secret"])
        assert await status_with(client, credentials) == status


@swept("words", [("set", "billing", "--scope", "users"), ("secret", "billing"), ("remove", "billing")])
async def test_changing_or_removing_an_unknown_client_fails(clients: Clients, words: tuple[str, ...]) -> None:
    assert "service client billing does not exist" in await clients.fail(*words)


NOT_OURS = ["wxauth", "wxauth-admin", "wxauthorize", "wx1a2b3c4d5e6f7a8b", APP["app_id"]]


@swept("command", ["add", "remove"])
@swept("name", ["wechat", "Billing", "-billing", "bill ing", "账单", "a" * 65, "", "billing\n"])
@pytest.mark.no_database
async def test_an_invalid_name_is_a_usage_error(clients: Clients, command: str, name: str) -> None:
    assert NAME_RULE in await clients.refuse("NAME", command, "--", name)


@swept(
    "words",
    [
        *(("add", name, "--device") for name in NOT_OURS),
        ("set", "wxauth-admin", "--scope", "users"),
        ("secret", "wxauth-admin"),
        ("remove", "wxauth-admin"),
    ],
)
@pytest.mark.no_database
async def test_no_site_is_named_like_us_or_an_app_or_has_our_page(clients: Clients, words: tuple[str, ...]) -> None:
    await clients.refuse("NAME", *words)


# Sites.


async def test_a_site_is_added_with_all_that_it_was_given(clients: Clients) -> None:
    credentials = await clients.add(
        *("shop", "--redirect-uri", CALLBACK, "--redirect-uri", "http://127.0.0.1/callback"),
        *("--logout-uri", "https://shop.example.com/", "--device", "--app", "wx1a2b3c4d5e6f7a8b", "--title", "小店"),
        *("--near", "--user-code", "--email-domain", "example.com"),
        *("--id-token-alg", "ES256", "--backchannel-logout-uri", "http://127.0.0.1/logout"),
        *(word for scope in SCOPES for word in ("--scope", scope)),
    )
    assert (len(credentials["client_secret"]), credentials["scopes"]) == (43, SCOPES)
    (listed,) = await clients.listed()
    assert listed.pop("created_at")
    assert listed == {**NO_SITE, **SITE, "client_id": "shop", "logo": None, "scopes": SCOPES}


async def test_a_public_client_has_no_secret_and_is_given_none(clients: Clients) -> None:
    shown = await clients.do(*PAGE)
    assert shown.stdout.split() == ["client_id", "page", "scopes", "openid,profile"]
    assert "no secret" in shown.stderr
    before = await clients.listed()
    assert "page is a public client, which has no secret" in await clients.fail("secret", "page")
    assert await clients.listed() == before


async def test_given_fields_of_a_site_are_changed_and_an_empty_text_clears_a_field(clients: Clients) -> None:
    await clients.do(*SHOP, "--app", "wx1a2b3c4d5e6f7a8b", "--near")
    done = await clients.do(
        *("set", "shop", "--scope", "phone", "--scope", "users", "--title", "小店", "--device", "--no-near"),
        *("--app", "", "--redirect-uri", "https://shop.example.com/new"),
    )
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()] == [
        ["client_id", "shop"],
        ["scopes", "users,phone"],
        ["title", "小店"],
        ["device", "True"],
        ["near", "False"],
        ["app_id", "-"],
        ["redirect_uris", "https://shop.example.com/new"],
    ]
    assert await clients.only("title", "device", "near", "app_id", "redirect_uris", "id_token_alg") == [
        *("小店", True, False, None, ["https://shop.example.com/new"], "RS256")
    ]
    cleared = ("--title", "", "--redirect-uri", "", "--email-domain", "example.com", "--id-token-alg", "ES256")
    await clients.do("set", "shop", *cleared)
    assert await clients.only("title", "redirect_uris", "email_domain", "id_token_alg") == [
        *("shop", [], "example.com", "ES256")
    ]


async def test_a_site_says_how_long_id_tokens_live_and_what_they_say_of_addresses(clients: Clients) -> None:
    await clients.do(*SHOP, "--id-token-ttl", "28800", "--email-domain", "wx.invalid", "--omit-email-verified")
    assert await clients.only("id_token_ttl", "omit_email_verified") == [28800, True]
    mine = ("--claim", "email=$attributes.mail", "--claim", "email_verified=true")
    await clients.do("set", "shop", "--email-domain", "", "--no-omit-email-verified", "--id-token-ttl", "")
    done = await clients.run("set", "shop", *mine)
    assert done.returncode == 2
    assert "--i-verify-this-address" in done.stderr
    assert "can take over accounts in the product" in " ".join(done.stderr.split())
    await clients.do("set", "shop", *mine, "--i-verify-this-address")
    assert await clients.only("id_token_ttl", "omit_email_verified", "claims") == [
        *(None, False, {"email": "$attributes.mail", "email_verified": True})
    ]
    for ttl, rule in (("59", "60 or more"), ("2592001", "at most"), ("1h", "must be a valid integer")):
        done = await clients.run("set", "shop", "--id-token-ttl", ttl)
        assert (done.returncode, rule in done.stderr) == (2, True), done.stderr


async def test_a_site_shares_logins_leaves_out_pkce_and_gets_claims_until_that_is_changed(clients: Clients) -> None:
    given = ("--claim", "tier=$attributes.tier", "--claim", 'team={"id": 7}', "--claim", "n=1", "--claim", "a=b=c")
    await clients.do(*SHOP, "--sso", "--no-pkce", *given)
    await clients.do("set", "shop", "--title", "Shop")
    claims = {"tier": "$attributes.tier", "team": {"id": 7}, "n": 1, "a": "b=c"}
    assert await clients.only("sso", "pkce", "claims") == [True, "optional", claims]
    done = await clients.do("set", "shop", "--no-sso", "--near", "--pkce", "--claim", "tier=1")
    assert 'claims     {"tier":1}' in done.stdout
    assert await clients.only("sso", "pkce", "claims") == [False, "required", {"tier": 1}]
    await clients.do("set", "shop", "--claim", "")
    assert await clients.only("claims") == [None]


async def test_a_sites_logo_is_a_picture_in_a_file(clients: Clients, tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(content_of(LOGO))
    (tmp_path / "logo.svg").write_bytes(b"<svg/>")
    await clients.do(*SHOP, "--logo", str(tmp_path / "logo.png"))
    assert await clients.only("logo") == [LOGO]
    for file in ("logo.svg", "missing.png"):
        await clients.refuse("--logo", "set", "shop", "--logo", str(tmp_path / file))
    await clients.do("set", "shop", "--logo", "")
    assert await clients.only("logo") == [None]


async def test_a_client_names_resources_of_the_settings(clients: Clients) -> None:
    entry = {"resource": "https://mcp.test/mcp", "title": "小店助手", "scopes": {"orders:read": "查看你的订单"}}
    known = {"WXAUTH_RESOURCES": json.dumps([entry])}
    for words in (SHOP, ("set", "shop")):
        refused = await clients.refuse("--resource", *words, "--resource", "https://mcp.test/mcp/", **known)
        assert "with or without a slash at the end as in that setting" in refused
        await clients.do(*words, "--resource", "HTTPS://mcp.test:443/mcp", **known)
        assert await clients.only("resources") == [["https://mcp.test/mcp"]]
    await clients.do("set", "shop", "--title", "Shop")  # works without the setting, which only a new resource needs
    await clients.do("set", "shop", "--resource", "")
    assert await clients.only("resources") == [[]]


async def test_the_list_shows_the_resources_of_a_service(clients: Clients) -> None:
    entry = {"resource": "https://mcp.test/mcp", "title": "小店助手", "scopes": {"orders:read": "查看你的订单"}}
    known = {"WXAUTH_RESOURCES": json.dumps([entry])}
    await clients.do("add", "gateway", "--resource", "https://mcp.test/mcp", **known)
    assert await clients.only("scopes", "resources") == [["introspect"], ["https://mcp.test/mcp"]]


REFUSED: list[tuple[str, tuple[str, ...]]] = [
    ("--scope", ("add", "x", "--scope", "everything")),
    ("--scope", ("set", "page")),
    ("--public", ("set", "page", "--device")),
    ("--title", ("add", "x", "--device", "--title", "\udcff")),
    ("--redirect-uri", ("set", "page", "--redirect-uri", "http://shop.example.com/")),
    ("--app", ("add", "x", "--device", "--app", "wx 1")),
    ("--no-pkce", ("add", "x", "--no-pkce")),
    *(("--claim", ("set", "page", "--claim", wrong)) for wrong in ("sub=x", "=x", "tier")),
]


async def test_what_is_refused_is_named_by_its_option_and_changes_nothing(clients: Clients) -> None:
    await clients.do(*PAGE)
    await clients.do("add", "billing")
    before = await clients.listed()
    for option, words in REFUSED:
        await clients.refuse(option, *words)
    assert await clients.listed() == before


async def test_a_site_names_apps_of_the_settings_and_of_the_database(clients: Clients, rows: Rows) -> None:
    page, computer = ACCOUNT["app_id"], WEBSITE["app_id"]
    apps = {"WXAUTH_APPS": json.dumps([*APPS, ACCOUNT, MOBILE_APP])}
    await rows.execute(
        "INSERT INTO apps (app_id, created_at, fields, secrets) VALUES ($1, now(), $2, $3)",
        *(computer, json.dumps({"kind": "website"}), bytes(64)),
    )
    await clients.do(*SHOP, "--account", page, "--website", computer, **apps)
    for option, app_id in (
        *(("--app", page), ("--app", MOBILE_APP["app_id"]), ("--account", computer), ("--account", APPS[0]["app_id"])),
        *(("--account", "wx0000000000000000"), ("--website", page), ("--website", "wx0000000000000000")),
    ):
        await clients.refuse(option, "set", "shop", option, app_id, **apps)
    names = ("app_id", "account_app_id", "website_app_id")
    assert await clients.only(*names) == [None, page, computer]
    await clients.do("set", "shop", "--account", "", "--website", "")
    assert await clients.only(*names) == [None, None, None]


async def test_no_site_is_made_with_the_name_of_the_audience(clients: Clients) -> None:
    assert "audience" in await clients.refuse("NAME", "add", "shop", "--device", WXAUTH_AUDIENCE="shop")
    await clients.do("add", "shop", WXAUTH_AUDIENCE="shop")  # a service gets no tokens, so it may have this name
    await clients.refuse("audience", "set", "shop", "--device", WXAUTH_AUDIENCE="shop")


async def test_serve_refuses_to_start_where_a_site_is_named_like_the_audience(
    clients: Clients, database_url: str, tmp_path: Path
) -> None:
    await clients.do("add", "shop", "--device")
    env = service_env(database_url, audience="shop", host="127.0.0.1", port=str(free_port()))
    refused = await to_thread(run, "serve", cwd=tmp_path, env=env)
    assert (refused.returncode, "WXAUTH_AUDIENCE" in refused.stderr) == (1, True)


async def test_a_client_for_devices_is_told_what_ready_made_tools_need(clients: Clients) -> None:
    needed = "wxauth clients set kube --user-code"
    assert needed in (await clients.do("add", "kube", "--device")).stderr
    assert needed in (await clients.do("set", "kube", "--device")).stderr
    assert needed not in (await clients.do("set", "kube", "--user-code", "--device")).stderr
    assert "--user-code" not in (await clients.do("add", "shell", "--device", "--user-code")).stderr
    assert "--user-code" not in (await clients.do(*SHOP)).stderr
