"""The errors page has an entry for each error code that a caller can get, and no link leads to a missing entry."""

import json
import re
from pathlib import Path

import pytest

from tests.docs import ROOT, both_languages, code_blocks, failures, guide, openapi, table
from wxauth.errors import InvalidCode
from wxauth_guard.errors import SessionRevoked
from wxauth_guard.problems import problem_document

pytestmark = pytest.mark.no_database

OF_THE_CLIENT = {
    "network_error",
    "timeout",
    "aborted",
    "wx_login_failed",
    "login_required",
    "single_page",
    "phone_refused",
    "phone_unavailable",
    "phone_quota_used_up",
    "domain_not_allowed",
    "no_platform",
    "invalid_argument",
    "origin_not_allowed",
    "http_error",
}
"""The error codes of the mini-program's client."""
STATUSES = {kind.code: kind.status for kind in failures() if kind is not SessionRevoked} | dict.fromkeys(OF_THE_CLIENT)
"""Each error code with its HTTP status. The codes of the mini-program's client have no status.

`session_revoked` is 400 at a refresh. The entry says below that services return it with 401.
"""
STATUS = {"": r"\*\*(?:Status (\d{3})|No status)\.\*\* \S", ".zh-CN": r"\*\*(?:状态码 (\d{3})|没有状态码)。\*\* \S"}
NEXT_STEP = {"": r"(?m)^\*\*Next step:\*\* \S", ".zh-CN": r"(?m)^\*\*下一步：\*\* \S"}


def entries(page: Path) -> list[tuple[str, str]]:
    """Return each code that has its own heading, which creates an anchor, with the text below it."""
    sections = re.split(r"(?m)^(?=#{2,3} )", page.read_text())
    found = (re.match(r"### `(\w+)`\n\n(.*)", section, re.DOTALL) for section in sections)
    return [(entry[1], entry[2]) for entry in found if entry]


@both_languages
def test_each_code_has_one_entry_with_its_status_and_a_next_step(language: str) -> None:
    found = entries(guide("errors", language))
    assert sorted(code for code, _ in found) == sorted(STATUSES)
    for code, text in found:
        said = re.match(STATUS[language], text)
        assert said, f"{code}: the entry must begin with the status"
        assert said[1] == (str(STATUSES[code]) if STATUSES[code] else None), code
        assert len(re.findall(NEXT_STEP[language], text)) == 1, f"{code}: the entry needs one next step"


@both_languages
def test_the_rules_for_all_errors_name_codes_of_the_service_once(language: str) -> None:
    rules = table(guide("errors", language), "what to do|处理方法")
    named = [code for *_, codes in rules for code in re.findall("`([a-z_]+)`", codes)]
    assert len(named) == len(set(named)) > 10
    assert set(named) <= {kind.code for kind in failures()}


@both_languages
def test_the_errors_of_oauth_are_those_of_the_service(language: str) -> None:
    rows = table(guide("errors", language), "error|错误")
    code = "".join(file.read_text() for file in (ROOT / "src/wxauth").rglob("*.py"))
    named = [error for row in rows for error in re.findall("`(.*?)`", row[0])]
    assert len(named) == len(set(named)) > 10
    assert [error for error in named if f'"{error}"' not in code] == []


@both_languages
def test_the_problem_shown_is_one_of_the_service(language: str) -> None:
    shown = json.loads(code_blocks(guide("http", language), "json")[1])
    error = InvalidCode(shown["detail"], errcode=shown["wechat_errcode"])
    assert shown == problem_document(error, language="zh-CN", request_id=shown["request_id"])


@pytest.mark.parametrize("page", ["http", "mini-program", "siblings", "wechat"])
@both_languages
def test_a_guide_that_speaks_of_errors_leads_to_their_page(page: str, language: str) -> None:
    assert re.search(r"\]\([./]*(?:reference/)?errors\.md[#)]", guide(page, language).read_text())


def test_what_a_program_is_told_of_errors_leads_to_their_page() -> None:
    page = "docs/reference/errors.md"
    document = openapi()
    assert page in document["info"]["description"]
    assert page in document["components"]["schemas"]["Problem"]["description"]
    told = [(ROOT / file).read_text() for file in ("clients/miniprogram/wxauth.d.ts", "skills/wxauth/SKILL.md")]
    assert all(page in text for text in told)
