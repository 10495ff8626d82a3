"""Guides, examples, declarations and texts repeat limits of the code. If they differ, a test says what to change."""

import re
from datetime import timedelta
from math import ceil
from typing import NamedTuple, get_args

import pytest

from tests.docs import ROOT, openapi
from wxauth.apps import registry
from wxauth.apps.schemas import AppAnswer
from wxauth.checks.database import STUCK_AFTER
from wxauth.checks.runner import CHECK_LIMIT_SECONDS
from wxauth.clients import clients
from wxauth.clients.models import CLIENT_NAME_PATTERN, OPTIONS
from wxauth.clients.service_clients import OPERATIONS_PER_SECOND, ClientOperation
from wxauth.console.links import LINK_LIFETIME
from wxauth.core.connecting import DEADLINES
from wxauth.core.users import PROFILE_FIELDS
from wxauth.events import webhooks
from wxauth.housekeeping import housekeeping
from wxauth.import_export.importing import PAUSES_SECONDS
from wxauth.keys import keyring
from wxauth.keys.models import JWKS_MAX_AGE_SECONDS, SHORTEST_LEAD
from wxauth.limits import queries as rates
from wxauth.pictures import thumbnails
from wxauth.pictures.avatars import MAX_FILE_BYTES
from wxauth.service.probes import DATABASE_CHECKS_MAX_AGE
from wxauth.settings import apps, roles
from wxauth.siblings.user_routes import MAX_LOOKED_UP
from wxauth.siblings.wechat_routes import LOOKED_WITHIN
from wxauth.sites.door import CLAIM_LASTS
from wxauth.texts import MAX_TITLE_LENGTH
from wxauth.users import attributes, ids
from wxauth.users.schemas import MAX_AVATAR_URL, MAX_NICKNAME, MAX_REASON, ProfileChange
from wxauth.users.search_queries import MIN_INDEXED_LENGTH
from wxauth.users.window_queries import SEARCH_SECONDS
from wxauth.web.edge import MAX_FIELDS, MAX_HEAD, MAX_PARAMETERS, MAX_TARGET
from wxauth.wechat import received
from wxauth.wechat.messages import MAX_TIMESTAMP_DIFFERENCE

pytestmark = pytest.mark.no_database


class Limit(NamedTuple):
    """A number in the code, and the files that repeat it, each with a pattern that finds the number."""

    place: str
    value: int
    repeated: dict[str, str]


KIBIBYTE = 1024
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WORDS = {
    "a": "1",
    "an": "1",
    "two": "2",
    "three": "3",
    "five": "5",
    "six": "6",
    "ten": "10",
    "twenty": "20",
    "五": "5",
}
HTTP = ("docs/reference/http.md", "docs/zh/reference/http.md")
ERRORS = ("docs/reference/errors.md", "docs/zh/reference/errors.md")
TEXTS = "console/page/texts.json"
LOGO = ("settings/apps", "cli/apps", "cli/clients", "clients/models", TEXTS)
NOT_SAID = {
    "ASSERTIONS": "each may be used once",
    "EXPORTS": "pages say `once a minute`",
}
"""The rates whose numbers no page says, and why."""


def said(module: str, value: int, pattern: str, *files: str) -> Limit:
    """Return a limit in a module of wxauth, which these modules or files repeat in texts that this pattern finds."""
    paths = [f"src/wxauth/{file}" if "." in file else f"src/wxauth/{file}.py" for file in files]
    return Limit(f"src/wxauth/{module}.py", value, dict.fromkeys(paths, pattern))


def most_in(pattern: str) -> int:
    """Return the largest number of repetitions in a pattern, such as 31 in `[a-z][a-z0-9]{0,31}`."""
    (most,) = re.findall(r",(\d+)\}", pattern)
    return int(most)


def seconds_until_known(refresh_pause: float) -> int:
    """Return when each process has read a change: after a pause and the slowest statement, in multiples of 5 s."""
    return 5 * ceil((refresh_pause + DEADLINES.total) / 5)


LIMITS = {
    "PHONE_CODES": Limit(
        "src/wxauth/limits/queries.py",
        rates.PHONE_CODES.at_most,
        {
            "docs/build/wechat.md": r"a user can send (\w+) phone codes per hour",
            "docs/zh/build/wechat.md": r"每小时最多提交 (\d+) 个手机号 code",
            "src/wxauth/phones/routes.py": r"After (\d+) codes in an hour",
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
        LINK_LIFETIME // MINUTE,
        {
            "docs/manage/console.md": r"within (\d+) minutes and never share",
            "docs/zh/manage/console.md": r"在 (\d+) 分钟内，你可以用这个网址",
            "docs/reference/security.md": r"to the console works once and expires after (\d+) minutes",
            "docs/zh/reference/security.md": r"管理后台的登录链接只能使用一次，(\d+) 分钟后失效",
            "src/wxauth/cli/admin.py": r"expires\s+after (\d+) minutes\. Without",
            f"src/wxauth/{TEXTS}": r"works only once and expires after (\d+) minutes",
        },
    ),
    "MAX_FILE_BYTES": Limit(
        "src/wxauth/pictures/avatars.py",
        MAX_FILE_BYTES // KIBIBYTE**2,
        {
            **dict.fromkeys((*HTTP, *ERRORS, "src/wxauth/pictures/routes.py"), r"(\d+) MiB"),
            "src/wxauth/errors.py": r"Pictures can be up to (\d+) MB",
        },
    ),
    "CONSENTS_GIVEN": said(
        "limits/queries", rates.CONSENTS_GIVEN.at_most, r"After (\d+)\s+consents in an hour", "users/account_routes"
    ),
    "PROFILE_CHANGES": said(
        "limits/queries", rates.PROFILE_CHANGES.at_most, r"After (\d+) changes in an hour", "users/account_routes"
    ),
    "PICTURES": said("limits/queries", rates.PICTURES.at_most, r"After (\d+) pictures in an hour", "pictures/routes"),
    "MAX_PIXELS": said(
        "pictures/thumbnails", thumbnails.MAX_PIXELS // KIBIBYTE**2, r"PNG of [^,]* (\d+) megapixels", "pictures/routes"
    ),
    "MAX_WEBP_PIXELS": said(
        "pictures/thumbnails",
        thumbnails.MAX_WEBP_PIXELS // KIBIBYTE**2,
        r"WebP of [^,]* (\d+) megapixels",
        "pictures/routes",
    ),
    "THUMBNAIL_SIDE": said(
        "pictures/thumbnails", thumbnails.THUMBNAIL_SIDE, r"has at most (\d+) pixels", "pictures/routes"
    ),
    "MAX_LOGO_BYTES": said("settings/apps", apps.MAX_LOGO_BYTES // KIBIBYTE, r"up to (\d+) KiB", *LOGO),
    "MAX_LOGO_SIDE": said("settings/apps", apps.MAX_LOGO_SIDE, r"(\d+) ×|(?<=× )(\d+)", *LOGO),
    "MAX_TITLE_LENGTH": said(
        "texts", MAX_TITLE_LENGTH, r"must be 1 to (\d+) characters[,\"]", "settings/types", "clients/documents"
    ),
    "CLIENT_NAME_PATTERN": said(
        "clients/models",
        1 + most_in(CLIENT_NAME_PATTERN),
        r"(\d+) characters \(a-z, 0-9, _ and -\) and begin",
        "clients/rules",
        "cli/webhooks",
    ),
    "ROLE_PATTERN": said(
        "settings/roles",
        1 + most_in(roles.ROLE_PATTERN),
        r"(?:1|up) to (\d+) characters \(a-z, 0-9, _ and -\)",
        "import_export/lines",
        "cli/users",
    ),
    "MAX_ROLES": said("settings/roles", roles.MAX_ROLES, r"up to (\d+) role names", "import_export/lines"),
    "ATTRIBUTE_NAME": said(
        "settings/roles",
        1 + most_in(roles.ATTRIBUTE_NAME.pattern),
        r"1 to (\d+) characters \(a-z",
        "import_export/files",
        "users/attributes",
    ),
    "MAX_BYTES": said("users/attributes", attributes.MAX_BYTES, r"object of up to (\d+) bytes", "import_export/lines"),
    "MAX_NAMES": said("users/attributes", attributes.MAX_NAMES, r"bytes with up to (\d+) names", "import_export/lines"),
    "MAX_DEPTH": said("users/attributes", attributes.MAX_DEPTH, r"nested at most (\d+) levels", "import_export/lines"),
    "MAX_ID_LENGTH": said(
        "users/ids", ids.MAX_ID_LENGTH, r"(?:openid from WeChat \(6|text of 1) to (\d+) ", "import_export/lines"
    ),
    "Unionid": said(
        "users/ids",
        most_in(get_args(ids.Unionid)[1].pattern),
        r"unionid from WeChat \(24 to (\d+) ",
        "import_export/lines",
    ),
    "MAX_REASON": said(
        "users/schemas",
        MAX_REASON,
        r"reason.*[Aa]t most (\d+) characters|up to (\d+) characters, without",
        "import_export/lines",
        "cli/users",
        TEXTS,
    ),
    "MAX_OPEN_SESSIONS": said(
        "settings/apps",
        apps.MAX_OPEN_SESSIONS,
        r"the (\d+) newest|1 to (\d+)\. When",
        "users/account_routes",
        TEXTS,
    ),
    "MAX_LOOKED_UP": said("siblings/user_routes", MAX_LOOKED_UP, r"Return up to (\d+) users", "siblings/user_routes"),
    "SIGN": said(
        "clients/service_clients",
        OPERATIONS_PER_SECOND[ClientOperation.SIGN],
        r"can sign (\d+) times a second in each\s+process, and",
        "siblings/wechat_routes",
    ),
    "SIGN_CHECK": said(
        "clients/service_clients",
        OPERATIONS_PER_SECOND[ClientOperation.SIGN_CHECK],
        r"have (\w+) of these signatures checked",
        "siblings/wechat_routes",
    ),
    "JS_SIGN": said(
        "clients/service_clients",
        OPERATIONS_PER_SECOND[ClientOperation.JS_SIGN],
        r"can sign (\d+) times a second in\s+each process\.",
        "siblings/wechat_routes",
    ),
    "LOOKED_WITHIN": said(
        "siblings/wechat_routes",
        LOOKED_WITHIN // MINUTE,
        r"not asked WeChat for (\w+) minute",
        "siblings/wechat_routes",
    ),
    "MIN_INDEXED_LENGTH": said(
        "users/search_queries", MIN_INDEXED_LENGTH, r"least (\w+) characters of the nickname", TEXTS
    ),
    "SEARCH_SECONDS": said(
        "users/window_queries",
        int(SEARCH_SECONDS),
        r"search stopped after (\w+) second",
        "users/schemas",
        "users/admin_routes",
    ),
    "DATABASE_CHECKS_MAX_AGE": said(
        "service/probes", DATABASE_CHECKS_MAX_AGE // SECOND, r"at most once (\w+) second", "service/probes"
    ),
    "clients.FORMER_SECRET_KEPT": said(
        "clients/clients",
        clients.FORMER_SECRET_KEPT // HOUR,
        r"previous secret works for another (\d+) hours",
        "clients/routes",
        "cli/clients",
        TEXTS,
    ),
    "webhooks.FORMER_SECRET_KEPT": said(
        "events/webhooks",
        webhooks.FORMER_SECRET_KEPT // HOUR,
        r"For (?:another )?(\d+) hours",
        "events/webhook_routes",
        "cli/webhooks",
    ),
    # The checks of the database come first, and all others run in parallel after them.
    "CHECK_LIMIT_SECONDS": said(
        "checks/runner", int(2 * CHECK_LIMIT_SECONDS), r"take at most (\d+) seconds", "checks/routes"
    ),
    "STUCK_AFTER": said("checks/database", STUCK_AFTER // HOUR, r"for (\w+) hour", "checks/database"),
    "REFUSALS_KEPT": said(
        "housekeeping/housekeeping",
        housekeeping.REFUSALS_KEPT // DAY,
        r"(?:refused [^.]* the last|are kept for) (\d+) days",
        "login/staff_routes",
        TEXTS,
    ),
    "DELIVERIES_KEPT": said(
        "housekeeping/housekeeping",
        housekeeping.DELIVERIES_KEPT // DAY,
        r"deliveries of the last (\d+) days",
        "events/webhook_routes",
    ),
    "registry.REFRESH_PAUSE_SECONDS": said(
        "apps/registry",
        seconds_until_known(registry.REFRESH_PAUSE_SECONDS),
        r"within (\d+) s",
        "apps/registry",
        "cli/apps",
    ),
    "keyring.REFRESH_PAUSE_SECONDS": said(
        "keys/keyring", seconds_until_known(keyring.REFRESH_PAUSE_SECONDS), r"within (\d+) seconds", "keys/routes"
    ),
    "JWKS_MAX_AGE_SECONDS": said(
        "keys/models",
        JWKS_MAX_AGE_SECONDS // 60,
        r"(?:response for|fuses? them within|reject them within|for more than) (\w+) minutes",
        "keys/routes",
        "cli/keys",
        "checks/issuer",
    ),
    "SHORTEST_LEAD": said(
        "keys/models",
        SHORTEST_LEAD // MINUTE,
        r"[Ss]ign (?:with the next key in )?(\w+) minutes",
        "keys/routes",
        "cli/keys",
        TEXTS,
    ),
    "PAUSES_SECONDS": said(
        "import_export/importing", sum(PAUSES_SECONDS) // 60, r"retries for (\w+) minutes", "cli/import_export"
    ),
    "CLAIM_LASTS": said(
        "sites/door", CLAIM_LASTS // MINUTE, r"(\w+) minute, or until the decision", "sites/doors/routes"
    ),
    "MAX_WATERMARK_AGE": said(
        "wechat/received",
        received.MAX_WATERMARK_AGE // DAY,
        r"more than (\w+) day old",
        "wechat/received",
        "session_keys/routes",
    ),
    "MAX_CLOCK_LEAD": said(
        "wechat/received",
        received.MAX_CLOCK_LEAD // MINUTE,
        r"more than (\w+) minutes in the future",
        "session_keys/routes",
    ),
    "MAX_TIMESTAMP_DIFFERENCE": said(
        "wechat/messages",
        MAX_TIMESTAMP_DIFFERENCE // MINUTE,
        r"(?:at most|more than) (\w+) minutes",
        "wechat/messages",
        "push/routes",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_page_repeats_the_limit_of_the_code(name: str) -> None:
    place, value, repeated = LIMITS[name]
    said = {
        file: [match[match.lastindex or 0] for match in re.finditer(pattern, (ROOT / file).read_text("utf-8"))]
        for file, pattern in repeated.items()
    }
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


def test_the_declarations_for_mini_programs_have_each_change_of_a_profile() -> None:
    file = "clients/miniprogram/wxauth.d.ts"
    declared = re.search(r"^  updateProfile\(changes: \{(.*?)\}\)", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    assert declared, f"{file} has no updateProfile"
    names = {*re.findall(r"(\w+)\?:", declared[1])}
    accepted = {"avatarUrl" if name == "avatar_url" else name for name in ProfileChange.model_fields}
    assert names == accepted, f"let updateProfile of {file} take {', '.join(sorted(accepted))}"


def test_the_answer_about_an_app_has_each_of_its_fields() -> None:
    answered = {*AppAnswer.model_fields}
    missing = {name for name in apps.App.model_fields if answered.isdisjoint((name, f"has_{name}"))}
    assert not missing, f"add {', '.join(sorted(missing))}, or has_… for a secret, to AppAnswer in apps/schemas.py"


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
