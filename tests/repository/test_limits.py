"""Guides, examples and declarations repeat limits from the code. If they differ, a test says what to change."""

import re
from datetime import timedelta
from typing import NamedTuple

import pytest

from tests.docs import ROOT, openapi
from wxauth.clients.models import OPTIONS
from wxauth.console.links import LINK_LIFETIME
from wxauth.core.users import PROFILE_FIELDS
from wxauth.limits import queries as rates
from wxauth.pictures.avatars import MAX_FILE_BYTES
from wxauth.users.schemas import MAX_AVATAR_URL, MAX_NICKNAME, ProfileChange
from wxauth.web.edge import MAX_FIELDS, MAX_HEAD, MAX_PARAMETERS, MAX_TARGET

pytestmark = pytest.mark.no_database


class Limit(NamedTuple):
    """A number in the code, and the files that repeat it, each with a pattern that finds the number."""

    place: str
    value: int
    repeated: dict[str, str]


KIBIBYTE = 1024
WORDS = {"five": "5", "twenty": "20", "五": "5"}
HTTP = ("docs/reference/http.md", "docs/zh/reference/http.md")
ERRORS = ("docs/reference/errors.md", "docs/zh/reference/errors.md")
NOT_SAID = {
    "ASSERTIONS": "each may be used once",
    "CONSENTS_GIVEN": "nobody agrees so often",
    "EXPORTS": "pages say `once a minute`",
    "PICTURES": "nobody changes a picture so often",
    "PROFILE_CHANGES": "nobody changes a profile so often",
}
"""The rates whose numbers no page says, and why."""
LIMITS = {
    "PHONE_CODES": Limit(
        "src/wxauth/limits/queries.py",
        rates.PHONE_CODES.at_most,
        {
            "docs/build/wechat.md": r"a user can send (\w+) phone codes per hour",
            "docs/zh/build/wechat.md": r"每小时最多提交 (\d+) 个手机号 code",
        },
    ),
    "USER_CODES": Limit(
        "src/wxauth/limits/queries.py",
        rates.USER_CODES.at_most,
        {
            "docs/build/website-codes.md": r"up to (\w+) incorrect login codes per minute",
            "docs/zh/build/website-codes.md": r"每分钟最多输错(.)次",
            "docs/reference/security.md": r"at most (\w+) wrong codes per minute",
            "docs/zh/reference/security.md": r"每分钟最多可以输错(.)次",
        },
    ),
    "SITES": Limit(
        "src/wxauth/limits/queries.py",
        rates.SITES.at_most,
        {
            "docs/build/website-sessions.md": r"up to (\d+) authorization codes per minute",
            "docs/zh/build/website-sessions.md": r"每分钟最多签发 (\d+) 个授权码",
        },
    ),
    "MAX_NICKNAME": Limit(
        "src/wxauth/users/schemas.py",
        MAX_NICKNAME,
        {
            **dict.fromkeys(HTTP, r"\| `nickname` [^|]*\|[^|]*?(\d+)"),
            **dict.fromkeys(
                ("docs/start/import-file.md", "docs/zh/start/import-file.md"),
                r"\| `nickname`, `avatar_url` \|[^|]*?(\d+)",
            ),
            "examples/miniprogram/pages/profile/profile.wxml": r'type="nickname".* maxlength="(\d+)"',
            "examples/moving-in/mongodb.js": r"nickName\.trim\(\)\]\.slice\(0, (\d+)\)",
            **dict.fromkeys(
                (f"examples/moving-in/{name}.sql" for name in ("litemall", "mysql", "nideshop")),
                r"'nickname', IF.*, 1, (\d+)\)\)",
            ),
            "examples/moving-in/postgresql.sql": r"left\(trim\(nick_name\), (\d+)\)",
        },
    ),
    "MAX_PARAMETERS": Limit(
        "src/wxauth/web/edge.py",
        MAX_PARAMETERS,
        {HTTP[0]: r"(\d+) query\s+parameters", HTTP[1]: r"查询[^；。|]*?(\d+) 个参数"},
    ),
    "MAX_TARGET": Limit(
        "src/wxauth/web/edge.py",
        MAX_TARGET // KIBIBYTE,
        dict.fromkeys(HTTP, r"(\d+) KiB \| 414\b"),
    ),
    "MAX_FIELDS": Limit(
        "src/wxauth/web/edge.py",
        MAX_FIELDS,
        {HTTP[0]: r"(\d+) header\s+fields", HTTP[1]: r"请求头[^；。|]*?(\d+) 个字段"},
    ),
    "MAX_HEAD": Limit(
        "src/wxauth/web/edge.py",
        MAX_HEAD // KIBIBYTE,
        {HTTP[0]: r"header\s+fields[^;.|]*?(\d+) KiB", HTTP[1]: r"Cookie[^；。|]*?(\d+) KiB"},
    ),
    "LINK_LIFETIME": Limit(
        "src/wxauth/console/links.py",
        LINK_LIFETIME // timedelta(minutes=1),
        {
            "docs/manage/console.md": r"within (\d+) minutes and never share",
            "docs/zh/manage/console.md": r"在 (\d+) 分钟内，你可以用这个网址",
            "docs/reference/security.md": r"to the console works once and expires after (\d+) minutes",
            "docs/zh/reference/security.md": r"管理后台的登录链接只能使用一次，(\d+) 分钟后失效",
            "src/wxauth/cli/admin.py": r"expires\s+after (\d+) minutes\. Without",
            "src/wxauth/console/page/texts.json": r"works only once and expires after (\d+) minutes",
        },
    ),
    "MAX_FILE_BYTES": Limit(
        "src/wxauth/pictures/avatars.py",
        MAX_FILE_BYTES // KIBIBYTE**2,
        dict.fromkeys((*HTTP, *ERRORS), r"(\d+) MiB"),
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_page_repeats_the_limit_of_the_code(name: str) -> None:
    place, value, repeated = LIMITS[name]
    said = {file: re.findall(pattern, (ROOT / file).read_text("utf-8")) for file, pattern in repeated.items()}
    silent = [file for file, found in said.items() if not found]
    assert not silent, f"{', '.join(silent)} no longer says what {name} is: mend the pattern in LIMITS of this test"
    wrong = {file: found for file, found in said.items() if {int(WORDS.get(each, each)) for each in found} != {value}}
    assert not wrong, (
        f"{name} in {place} is {value}: change what these files say (LIMITS of this test has where): {wrong}"
    )


def test_each_rate_is_in_this_list_or_said_nowhere() -> None:
    named = {name for name, value in vars(rates).items() if isinstance(value, rates.Rate)}
    assert not (missing := named - {*LIMITS, *NOT_SAID}), (
        f"add {', '.join(sorted(missing))} to LIMITS of this test with the pages that say the number, or to NOT_SAID"
    )


def test_no_other_place_of_the_code_repeats_the_nicknames_limit() -> None:
    schemas = openapi()["components"]["schemas"]
    for schema, limits in {
        "ProfileChange": {"nickname": MAX_NICKNAME, "avatar_url": MAX_AVATAR_URL},
        "LoginRequest": {"nickname": MAX_NICKNAME, "avatar_url": MAX_AVATAR_URL},
    }.items():
        for field, limit in limits.items():
            documented = {each["maxLength"] for each in schemas[schema]["properties"][field]["anyOf"] if len(each) > 1}
            assert documented == {limit}, (
                f"{field} of {schema} is documented with {documented}, not with {limit}: take the limit from "
                "src/wxauth/users/schemas.py"
            )


def test_a_user_can_change_each_field_of_the_profile() -> None:
    lacking = {*PROFILE_FIELDS} - ProfileChange.model_fields.keys()
    assert not lacking, f"add {', '.join(lacking)} to ProfileChange in src/wxauth/users/schemas.py, with its limit"


def test_the_declarations_for_mini_programs_have_each_field_of_a_user() -> None:
    file = "clients/miniprogram/wxauth.d.ts"
    declared = re.search(r"^export interface User \{\n(.*?)^\}", (ROOT / file).read_text("utf-8"), re.M | re.S)
    assert declared, f"{file} has no interface User"
    names = {*re.findall(r"^  (\w+)\??:", declared[1], re.MULTILINE)}
    answered = {*openapi()["components"]["schemas"]["UserAnswer"]["properties"]}
    assert not (missing := answered - names), f"add {', '.join(sorted(missing))} to the interface User of {file}"
    assert not (gone := names - answered), f"no user has {', '.join(sorted(gone))}: remove it from User of {file}"


def test_the_consoles_form_of_a_client_has_each_option() -> None:
    file = "src/wxauth/console/page/services.js"
    form = re.search(r"^function edit\(.*?^\}", (ROOT / file).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert form, f"{file} has no function edit"
    # logoField and claimsField add these
    names = {*re.findall(r"(?<=')\w+(?=')|\b\w+(?=: ')", form[0])} | {"logo", "claims"}
    missing = sorted(set(OPTIONS) - names)
    assert not missing, (
        f"add a field for {', '.join(missing)} to the function `edit` in {file}, with its label in texts.json"
    )
