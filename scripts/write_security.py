"""Write the tables of `security.md` and the results of the conformance suites in it, in English and Chinese.

The tables come from `tests/requirements.toml` and from the marks of tests, and the results come from
`docs/reference/conformance.json`.
"""

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
GUIDES: Final = {"en": ROOT / "docs/reference/security.md", "zh": ROOT / "docs/zh/reference/security.md"}
_REQUIREMENTS: Final = ROOT / "tests/requirements.toml"
_CONFORMANCE: Final = ROOT / "docs/reference/conformance.json"
_TABLE_HEADERS: Final = {"en": "| requirement | how | test |", "zh": "| 要求 | 做法 | 测试 |"}
_STANDARDS_HEADINGS: Final = {"en": "Standards", "zh": "标准"}
"""The heading above the table that contains all sections except those of ASVS and of the contract."""
_AFTER_TABLES: Final = "\n### OpenSSF Scorecard\n"
"""The text that follows the tables in the guide."""
_RESULTS_SECTION: Final = re.compile(r"(?<=<!-- conformance -->\n).*?(?=<!-- end -->)", re.DOTALL)
"""The pattern of the guide's text about the conformance suites."""
_RESULT_COLUMNS: Final = ("modules", "passed", "review", "skipped", "warning", "failed")
"""The names in `conformance.json` of the numbers in the table of results."""
_RESULTS: Final = {
    "en": """
On {date}, we ran version {version} of the OpenID Foundation's conformance suite (commit {commit}, unmodified). We
registered the suite's clients with these options: `{clients}`.
All {modules} modules had the expected result:

| plan | modules | passed | reviewer decides | skipped | warning | failed |
|---|--:|--:|--:|--:|--:|--:|
{rows}
We also ran `{mcp[package]}` {mcp[version]}, the conformance suite of MCP. wxauth passes {server[passed]} of
{server[scenarios]} scenarios for authorization servers. The {examples[count]} servers in
[{examples[folder]}](../build/agents.md) pass these scenarios: {passed}.

""",
    "zh": """
我们在 {date} 运行了 OpenID 基金会的一致性测试套件 {version}（提交 {commit}，未作修改），\
并使用 `{clients}` 添加测试客户端。全部 {modules} 个项目的结果都符合预期：

| 计划 | 项目 | 通过 | 审核者判断 | 跳过 | 警告 | 失败 |
|---|--:|--:|--:|--:|--:|--:|
{rows}
我们还运行了 MCP 的一致性测试套件 `{mcp[package]}` {mcp[version]}。\
在面向授权服务器的 {server[scenarios]} 个场景中，wxauth 通过 {server[passed]} 个。\
[{examples[folder]}](../build/agents.md) 中的 {examples[count]} 个服务器通过了以下场景：{passed}。

""",
}


def written(language: str) -> str:
    """Return the guide in this language, with the current tables and results."""
    guide = GUIDES[language].read_text(encoding="utf-8")
    first_heading = f"\n### {sections()[0]['title'][_index_of(language)]}\n"
    before, after = guide[: guide.index(first_heading)], guide[guide.index(_AFTER_TABLES) :]
    guide = f"{before}{''.join(_tables(language))}{after}"
    return _RESULTS_SECTION.sub(lambda _old: _results(language), guide)


def sections() -> list[dict[str, Any]]:
    """Return the sections of `tests/requirements.toml`, each of which describes a standard or a chapter of one.

    Each section has rows. A row contains its ids, the English text, the Chinese text and, if there is no test, the
    reason.
    """
    content: dict[str, list[dict[str, Any]]] = tomllib.loads(_REQUIREMENTS.read_text(encoding="utf-8"))
    return content["section"]


def id_of(section: Mapping[str, Any], row: Sequence[str]) -> str:
    """Return the id by which the marks of tests refer to a row, such as `rfc7636-4.6`.

    It consists of the section's prefix and the first id in the row.
    """
    first_id = re.split(",| to ", row[0])[0]
    return f"{section['prefix']}-{first_id}"


def marked() -> dict[str, list[str]]:
    """Return the names of the tests for each requirement, by the requirement's id in `pytest.mark.requirement`."""
    tests: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").glob("*/**/test_*.py")):
        if "node_modules" in file.parts:
            continue
        text = file.read_text(encoding="utf-8")
        if "requirement(" not in text:  # saves the time to parse the file
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for requirement in _requirements_in(node.decorator_list):
                    tests.setdefault(requirement, []).append(node.name)
    return tests


def _requirements_in(decorators: Sequence[ast.expr]) -> Iterator[str]:
    """Yield the ids of the requirements with which these decorators mark a test."""
    for decorator in decorators:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.requirement":
            for argument in decorator.args:
                yield ast.literal_eval(argument)


def _tables(language: str) -> Iterator[str]:
    """Yield the lines of the tables: one for each chapter of ASVS, one for the standards, and one for the contract."""
    tests = marked()
    previous_heading = ""
    for section in sections():
        heading = _STANDARDS_HEADINGS[language] if _is_of_standards(section) else section["title"][_index_of(language)]
        if heading != previous_heading:  # all standards share one table
            yield f"\n### {heading}\n\n{_TABLE_HEADERS[language]}\n|---|---|---|\n"
            previous_heading = heading
        for row in section["rows"]:
            names = ", ".join(f"`{test}`" for test in tests.get(id_of(section, row), ()))
            last_cell = f" {names} " if names else " "
            yield f"| {_shown_ids(section, row, language)} | {row[1 + _index_of(language)]} |{last_cell}|\n"


def _shown_ids(section: Mapping[str, Any], row: Sequence[str], language: str) -> str:
    """Return the ids of a row as the table shows them, with a link to the standard, except for ASVS."""
    ids, prefix, link = row[0], section["prefix"], section["link"]
    if language == "zh":
        ids = ids.replace(", ", "、").replace(" to ", " 至 ")
    if prefix == "asvs":
        return ids
    if prefix.startswith("rfc"):
        return f"[{prefix.replace('rfc', 'RFC ')}, {ids}]({link}#section-{ids})"
    if _is_of_standards(section):
        return f"[{section['title'][_index_of(language)]}, {ids}]({link})"
    return f"[{ids}]({link})"


def _is_of_standards(section: Mapping[str, Any]) -> bool:
    """Return whether the table of the standards contains this section."""
    return section["prefix"] not in ("asvs", "wxauth")


def _results(language: str) -> str:
    """Return the text about the results of the conformance suites."""
    results = json.loads(_CONFORMANCE.read_text(encoding="utf-8"))
    openid, mcp = results["openid"], results["mcp"]
    comma = ", " if language == "en" else "、"
    rows = ""
    for plan in openid["plans"]:
        cells = (comma.join(plan["plan"]), *(str(plan[column]) for column in _RESULT_COLUMNS))
        rows += f"| {' | '.join(cells)} |\n"
    return _RESULTS[language].format(
        **openid,
        rows=rows,
        modules=sum(plan["modules"] for plan in openid["plans"]),
        mcp=mcp,
        server=mcp["authorization_server"],
        examples=mcp["servers"],
        passed=comma.join(mcp["servers"]["passed"]),
    )


def _index_of(language: str) -> int:
    """Return the index of a language in pairs of English and Chinese texts."""
    return tuple(GUIDES).index(language)


if __name__ == "__main__":
    for language, path in GUIDES.items():
        path.write_text(written(language), encoding="utf-8")
