"""Write the tables of `security.md`, in both languages.

They come from `tests/requirements.toml`, the marks of tests, and `docs/reference/conformance.json`.
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
HEAD: Final = {"en": "| requirement | how | test |", "zh": "| 要求 | 做法 | 测试 |"}
STANDARDS: Final = {"en": "Standards", "zh": "标准"}
"""The heading of all sections except ASVS's and the contract's."""
BEHIND: Final = "\n### OpenSSF Scorecard\n"
"""The text that follows the tables."""
CONFORMANCE: Final = re.compile(r"(?<=<!-- conformance -->\n).*?(?=<!-- end -->)", re.DOTALL)
COLUMNS: Final = ("modules", "passed", "review", "skipped", "warning", "failed")
SUITES: Final = {
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


def suites(language: str) -> str:
    """Return the results of the conformance suites."""
    found = json.loads((ROOT / "docs/reference/conformance.json").read_text(encoding="utf-8"))
    comma = ", " if language == "en" else "、"
    rows = ""
    for each in found["openid"]["plans"]:
        cells = (comma.join(each["plan"]), *(str(each[column]) for column in COLUMNS))
        rows += f"| {' | '.join(cells)} |\n"
    mcp = found["mcp"]
    return SUITES[language].format(
        **found["openid"],
        rows=rows,
        modules=sum(each["modules"] for each in found["openid"]["plans"]),
        mcp=mcp,
        server=mcp["authorization_server"],
        examples=mcp["servers"],
        passed=comma.join(mcp["servers"]["passed"]),
    )


def sections() -> list[dict[str, Any]]:
    """Return the standards, with their rows of ids, English, Chinese, and the reason if there is no test."""
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "tests/requirements.toml").read_text(encoding="utf-8"))[
        "section"
    ]
    return found


def id_of(section: Mapping[str, Any], row: Sequence[str]) -> str:
    """Return the id that tests name a row by, such as `rfc7636-4.6`."""
    return f"{section['prefix']}-{re.split(',| to ', row[0])[0]}"


def marked() -> dict[str, list[str]]:
    """Return the tests of each requirement, by their marks."""
    tests: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").glob("*/**/test_*.py")):
        if "node_modules" in file.parts or "requirement(" not in (text := file.read_text(encoding="utf-8")):
            continue
        for made in ast.walk(ast.parse(text)):
            if isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in made.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.requirement":
                        for name in map(ast.literal_eval, mark.args):
                            tests.setdefault(name, []).append(made.name)
    return tests


def tables(language: str) -> Iterator[str]:
    """Yield a table for each chapter of ASVS, one for the standards, and one for the contract."""
    tests, column, heading = marked(), ("en", "zh").index(language), ""
    for section in sections():
        title, prefix = section["title"][column], section["prefix"]
        of_standard = prefix not in ("asvs", "wxauth")
        if heading != (heading := STANDARDS[language] if of_standard else title):
            yield f"\n### {heading}\n\n{HEAD[language]}\n|---|---|---|\n"
        for row in section["rows"]:
            ids = row[0] if language == "en" else row[0].replace(", ", "、").replace(" to ", " 至 ")
            if prefix.startswith("rfc"):
                ids = f"[{prefix.replace('rfc', 'RFC ')}, {ids}]({section['link']}#section-{ids})"
            elif prefix != "asvs":
                ids = f"[{f'{title}, {ids}' if of_standard else ids}]({section['link']})"
            shown = ", ".join(f"`{test}`" for test in tests.get(id_of(section, row), ()))
            yield f"| {ids} | {row[1 + column]} | {shown}{' ' if shown else ''}|\n"


def written(language: str) -> str:
    """Return the guide with its current tables."""
    text = GUIDES[language].read_text(encoding="utf-8")
    [first, *_] = sections()
    before = text.index(f"\n### {first['title'][('en', 'zh').index(language)]}\n")
    behind = text.index(BEHIND)
    text = f"{text[:before]}{''.join(tables(language))}{text[behind:]}"
    return CONFORMANCE.sub(lambda _: suites(language), text)


if __name__ == "__main__":
    for each, guide in GUIDES.items():
        guide.write_text(written(each), encoding="utf-8")
