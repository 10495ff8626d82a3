"""The examples in the guides of websites work, and the options in clients.md are those of the command."""

import re
import shlex
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.docs import ROOT, both_languages, code_blocks, guide, openapi, table, uncommented
from wxauth.cli.clients import clients
from wxauth.clients.rules import build_client

GUIDES = [guide(name) for name in ("websites", "website-sessions", "website-codes")]
PRODUCTS = ROOT / "examples/products"


def test_the_options_are_those_of_the_command() -> None:
    documented = {option.strip("`") for option, _ in table(guide("clients"), "option")}
    add = clients.commands["add"]
    options = {name for parameter in add.params for name in parameter.opts if name.startswith("--")}
    assert documented == options - {"--json"}


@pytest.mark.slow
def test_every_endpoint_named_in_the_docs_exists() -> None:
    paths = openapi()["paths"].keys()
    named = {path for page in GUIDES for path in re.findall(r"https://auth\.example\.com(/v1/\w+)", page.read_text())}
    assert named
    assert named <= paths


def test_the_configurations_of_products_admit_only_users_with_a_role() -> None:
    ini = ConfigParser(interpolation=None)
    ini.read_string((PRODUCTS / "grafana.ini").read_text())
    grafana = ini["auth.generic_oauth"]
    assert (grafana["use_pkce"], grafana["role_attribute_strict"]) == ("true", "true")
    for alternative in grafana["role_attribute_path"].split("||"):
        assert re.fullmatch(r"contains\(not_null\(roles, `\[\]`\), '\w+'\) && '\w+'", alternative.strip())
    proxy = tomllib.loads((PRODUCTS / "oauth2-proxy.toml").read_text())
    assert proxy["allowed_groups"] == ["staff"]
    assert proxy["oidc_groups_claim"] in proxy["scope"].split()
    nextcloud = dict(re.findall(r"--([\w-]+)=(\S+)", (PRODUCTS / "nextcloud.sh").read_text()))
    assert (nextcloud["mapping-groups"], nextcloud["group-restrict-login-to-whitelist"]) == ("roles", "1")
    assert nextcloud["group-whitelist-regex"] == "'/^staff$/'"
    # GitLab leaves the approval of new users to an administrator.
    gitlab = dict(
        re.findall(r"^gitlab_rails\['(\w+)'\] = ([^\s#]+)", (PRODUCTS / "gitlab.rb").read_text(), re.MULTILINE)
    )
    assert gitlab["omniauth_block_auto_created_users"] == "true"


def products(language: str) -> list[Path]:
    """Return the page of each product, without the page of the libraries."""
    overview = guide("openid-provider", language)
    return [page for page in sorted((overview.parent / "openid").glob("*.md")) if page.stem != "libraries"]


@both_languages
def test_each_product_has_a_page_of_one_form(language: str) -> None:
    forms = set()
    for page in products(language):
        parts = re.split(r"(?m)^## (.*)\n", page.read_text())
        headings, sections = parts[1::2], parts[2::2]
        # The headings "Steps in NAME" and "What NAME stores" contain the product's name.
        [name] = re.findall(r"^(?:Steps in |在 ?)(.*?)(?: ?中的步骤)?$", headings[2])
        forms.add(tuple(heading.replace(name, "...").replace(" ", "") for heading in headings))
        assert all(section.strip() for section in sections), page.name
        for steps in sections[1:3]:
            assert re.match(r"\n1\. ", steps), f"{page.name}: the steps are numbered"
    assert len(forms) == 1, forms


@both_languages
def test_the_command_of_each_product_adds_what_the_table_says(language: str) -> None:
    overview = guide("openid-provider", language)
    assert re.search(r"^\*\*", overview.read_text().partition("\n## ")[0], re.MULTILINE), "who can sign in by default"
    rows = table(overview, "product|产品")
    said = {re.findall(r"\(openid/(.*?)\.md\)", row[0])[0]: " ".join(re.findall("`(.*?)`", row[1])) for row in rows}
    assert sorted(said) == [page.stem for page in products(language)]
    for page in products(language):
        command = code_blocks(page, "sh")[0].replace("\\\n", "")
        words = shlex.split(command)[3:]
        with clients.commands["add"].make_context("add", words) as context:
            given = context.params
        assert given["client_name"], page.name
        assert given["redirect_uris"], page.name
        options = [*given["scopes"], *(["--email-domain"] if given["email_domain"] else [])]
        options += ["--no-pkce"] if given["pkce"] == "optional" else []
        assert said[page.stem].split() == options, page.name


@both_languages
def test_the_commands_for_products_with_other_claims_are_right(language: str) -> None:
    for command in code_blocks(guide("openid-provider", language), "sh")[1:]:
        _wxauth, group, verb, *words = shlex.split(command)
        with clients.commands[verb].make_context(verb, words) as context:
            fields = {name: value for name, value in context.params.items() if value is not None}
        build_client(fields.pop("client_name"), {"device": True, **fields})
        assert (group, fields["claims"].keys() <= {"email", "preferred_username", "groups"}) == ("clients", True)


def test_the_guides_show_two_places_of_the_site() -> None:
    site = uncommented((ROOT / "examples/site/app.py").read_text())
    shown = [block for page in GUIDES for block in code_blocks(page, "python")]
    assert len(shown) == 2
    assert [block for block in shown if uncommented(block) not in site] == []


@both_languages
def test_the_guide_shows_every_picture_of_the_login_pages(language: str) -> None:
    shown = re.findall(r"\]\([./]+/pictures/pages/([^)]+)\)", guide("pages", language).read_text())
    pictures = (ROOT / "docs/pictures/pages").glob(f"*{language}.png")
    assert sorted(shown) == sorted(each.name for each in pictures if language or ".zh-CN" not in each.name)


@both_languages
def test_a_service_worker_as_the_guide_shows_leaves_wxauths_paths_alone(language: str) -> None:
    [denied] = re.findall(r"`navigateFallbackDenylist: \[/(.*)/\]`", guide("operations", language).read_text())
    pattern = denied.replace(r"\/", "/")  # a literal in JavaScript
    # Workbox compares the path and the query (NavigationRoute of workbox-routing).
    for path in ("v1/authorize?client_id=shop", "v1/end_session", "v1/authorize/wechat?code=x", "admin/", "d/x"):
        assert re.search(pattern, f"/auth/{path}")
    for path in ("/", "/authors", "/shop/auth/", "/?back=/auth/"):
        assert not re.search(pattern, path)
