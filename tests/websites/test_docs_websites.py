"""The examples in websites.md are those that run, and the options in clients.md are those of the command."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.docs import ROOT, both_languages, code_blocks, guide, openapi, table, uncommented
from wxauth.cli.clients import clients

GUIDE = ROOT / "docs/build/websites.md"
PRODUCTS = ROOT / "examples/products"


def test_the_options_are_those_of_the_command() -> None:
    documented = {option.strip("`") for option, _ in table(guide("clients"), "option")}
    add = clients.commands["add"]
    options = {name for parameter in add.params for name in parameter.opts if name.startswith("--")}
    assert documented == options - {"--json"}


@pytest.mark.slow
def test_every_endpoint_named_in_the_docs_exists() -> None:
    paths = openapi()["paths"].keys()
    named = set(re.findall(r"https://auth\.example\.com(/v1/\w+)", GUIDE.read_text()))
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
    # GitLab leaves it to an administrator.
    gitlab = dict(
        re.findall(r"^gitlab_rails\['(\w+)'\] = ([^\s#]+)", (PRODUCTS / "gitlab.rb").read_text(), re.MULTILINE)
    )
    assert gitlab["omniauth_block_auto_created_users"] == "true"


@pytest.mark.parametrize(
    ("page", "words"), [(guide("openid-provider"), "Who can sign in"), (guide("openid-provider", "zh"), "谁可以登录")]
)
def test_each_provider_says_who_can_sign_in(page: Path, words: str) -> None:
    before, *sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
    assert re.search(r"^\*\*", before, re.MULTILINE)
    products = {"Auth.js", "better-auth", "Logto", "Keycloak", "Supabase"}
    assert {section.partition("\n")[0] for section in sections if f"- **{words}**" in section} == products


def test_the_guide_shows_two_places_of_the_site() -> None:
    site = uncommented((ROOT / "examples/site/app.py").read_text())
    shown = code_blocks(GUIDE, "python")
    assert len(shown) == 2
    assert [block for block in shown if uncommented(block) not in site] == []


@both_languages
def test_the_guide_shows_every_picture_of_the_login_pages(language: str) -> None:
    shown = re.findall(r"\]\([./]+/pictures/pages/([^)]+)\)", guide("pages", language).read_text())
    pictures = (ROOT / "docs/pictures/pages").glob(f"*{language}.png")
    assert sorted(shown) == sorted(each.name for each in pictures if language or ".zh-CN" not in each.name)
