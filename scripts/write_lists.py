"""Add the rows that are missing in tables of the guides, and write the copies of files below `examples/`.

Existing rows stay unchanged, because an author may have edited them. A new row contains the text from the declaration,
for example the summary of an operation, in the language of the guide.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import Final

import click

from wxauth.cli import main as main_command
from wxauth.core.trail import EventType
from wxauth.core.users import PROFILE_FIELDS
from wxauth.i18n import Text, translate
from wxauth.import_export.lines import FIELD_RULES, Line
from wxauth.service.app import create_api
from wxauth.users.schemas import UserAnswer
from wxauth.web.answers import example_of
from wxauth.web.direct import DirectRoute

ROOT: Final = Path(__file__).parents[1]
_FOLDERS: Final = {"en": "docs", "zh-CN": "docs/zh"}
"""The folder of the guides in each language."""
_COMMAS: Final = {"en": ", ", "zh-CN": "、"}
"""The text between two items of a list in each language."""
_OPERATIONS: Final = ROOT / "tests/web/operations.txt"
"""The list of all operations: the method, the path, the name and the callers, among other columns."""
_SDK: Final = ROOT / "clients/miniprogram"
_AI_DEMO: Final = ROOT / "examples/miniprogram-ai"
_GENERATED_FOLDERS: Final = frozenset({"dist", "node_modules"})
"""The names of folders that contain the output of build tools and installed packages."""


def main() -> None:
    """Write the files. Exit if a text has no translation yet, because its row in the Chinese guide would be English."""
    # This module is on the path only if this file runs as a script, and tests import this file as a module.
    from check_languages import text_faults  # type: ignore[import-not-found]

    faults = list(text_faults())
    if faults:
        raise SystemExit("\n".join([*faults, "Then run scripts/docs again."]))
    for guide, text in guides():
        guide.write_text(text, "utf-8")
    for copy, original in copies():
        shutil.copyfile(original, copy)


def copies() -> Iterator[tuple[Path, Path]]:
    """Yield each copy below `examples/`, and its original.

    The examples contain copies, because WeChat's tools open the folder of an example without its parents.
    """
    for original in _SDK.glob("wxauth*.*s"):  # wxauth.js and wxauth.d.ts, for example
        for copy in (ROOT / "examples").glob(f"**/{original.name}"):
            if _GENERATED_FOLDERS.isdisjoint(copy.relative_to(ROOT).parts):
                yield copy, original
    for name in ("uni-app", "uni-app-vue2"):
        yield ROOT / "examples" / name / "src/config.js", ROOT / "examples/miniprogram/config.js"
    yield ROOT / "examples/uni-app-vue2/src/simulated.js", ROOT / "examples/uni-app/src/simulated.js"
    for name in ("auth.js", "teas.js"):
        yield _AI_DEMO / "skills/orders-skill" / name, _AI_DEMO / name


def guides() -> Iterator[tuple[Path, str]]:
    """Yield each guide with such a table, and its text with the missing rows."""
    functions = {
        "build/events": _with_events,
        "start/import-file": _with_import_fields,
        "manage/privacy": _with_profile_fields,
        "reference/http": _with_operations,
        "reference/commands": _with_commands,
    }
    for language, folder in _FOLDERS.items():
        for name, add_missing in functions.items():
            path = ROOT / folder / f"{name}.md"
            yield path, add_missing(path.read_text("utf-8"), language)
    for path in (ROOT / "README.md", ROOT / "README.zh-CN.md"):
        yield path, _with_members(path.read_text("utf-8"), example_of(UserAnswer))


def _with_events(page: str, language: str) -> str:
    """Return a page whose first table of event types contains all types that other services receive.

    The second table, about the audit trail, contains the types that other services do not receive, and the types with
    further data that other services do not receive.
    """

    def cells(kind: EventType, names: Iterable[str]) -> str:
        data = _COMMAS[language].join(f"`{name}`" for name in names)
        return f"{data} | {kind.meaning.translated(language)}"

    sent: dict[str, str] = {}
    recorded: dict[str, str] = {}
    for kind in EventType:
        if kind.sent is not None:
            sent[kind] = cells(kind, kind.sent)
        only_recorded = kind.data.difference(kind.sent or ())
        if only_recorded or kind.sent is None:
            recorded[kind] = cells(kind, sorted(only_recorded))
    page = _with_rows(page, "type", sent, table=0)
    return _with_rows(page, "type", recorded, table=1)


def _with_import_fields(page: str, language: str) -> str:
    """Return a page whose table of fields contains all fields of a line to import, with their rules."""
    rules = {name: FIELD_RULES[name].translated(language) for name in Line.model_fields}
    return _with_rows(page, "field|字段", rules)


def _with_profile_fields(page: str, language: str) -> str:
    """Return a page whose row about the profile names all profile fields. The row begins with `nickname`."""
    comma = _COMMAS[language]
    names = comma.join(f"`{name}`" for name in PROFILE_FIELDS)
    return re.sub(rf"^\| `nickname`({comma}`\w+`)*", f"| {names}", page, flags=re.MULTILINE)


def _with_operations(page: str, language: str) -> str:
    """Return a page whose example of a user has all members, and whose two tables contain all operations.

    The second table contains the operations for administrators.
    """
    lines = (line.split() for line in _OPERATIONS.read_text("utf-8").splitlines())
    callers = {f"{method} {path}": who for method, path, _name, who, *_ in lines}
    public: dict[str, str] = {}
    for_administrators: dict[str, str] = {}
    for route in create_api().routes:
        if isinstance(route, DirectRoute) and route.include_in_schema:
            rows = for_administrators if route.path.startswith("/v1/admin/") else public
            for method in route.methods or ():
                operation = f"{method} {route.path}"
                rows[operation] = f"`{callers.get(operation, '?')}` | {translate(route.summary, language)}"
    page = _with_members(page, example_of(UserAnswer))
    page = _with_rows(page, "method and path|方法与路径", public, table=0)
    return _with_rows(page, "method and path|方法与路径", for_administrators, table=1)


def _with_members(page: str, user: Mapping[str, object]) -> str:
    """Return a page whose first JSON block, which contains a user as its last member, has all members of the user.

    A missing member gets the place that it has in a real response, and the spaces of its neighbours.
    """
    before, _, block = page.partition("```json\n")
    shown, end, after = block.partition("\n  }\n}\n```")
    names = sorted(user, key=lambda name: name != "id")  # the other names keep their order, as in `shown_in`
    space = " " if '": ' in shown else ""
    for previous, name in pairwise(names):
        if f'"{name}":' not in shown:
            begin = f'"{previous}":{space}'
            _value, place = json.JSONDecoder().raw_decode(shown, shown.index(begin) + len(begin))
            added = f',\n    "{name}":{space}{json.dumps(user[name], ensure_ascii=False)}'
            shown = shown[:place] + added + shown[place:]
    return f"{before}```json\n{shown}{end}{after}"


def _with_commands(page: str, language: str) -> str:
    """Return a page whose table of commands contains all commands, with the first paragraph of their help texts."""
    rows = {}
    for words, text in _commands_below(main_command):
        summary = Text(text).translated(language).partition("\n\n")[0]
        rows[f"wxauth {' '.join(words)}"] = summary.replace("\n", " ")
    return _with_rows(page, "command|命令", rows)


def _commands_below(command: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the words and the help text of each command below a group; of the command itself if it is not a group.

    `words` are the words of the command, without `wxauth`.
    """
    if not isinstance(command, click.Group):
        yield words, cleandoc(command.help or "")
        return
    with click.Context(command) as context:
        for name in command.list_commands(context):
            _name, subcommand, _arguments = command.resolve_command(context, [name])
            yield from _commands_below(subcommand or command, *words, name)


def _with_rows(page: str, header: str, rows: Mapping[str, str], *, table: int = 0) -> str:
    """Return a page with the rows that its table lacks, at the end of the table.

    `header` is a pattern of the table's first header cell. `rows` contains the other cells of each row, by the name in
    its first cell. If several tables have this header, `table` is the index of the table among them.
    """
    pattern = re.compile(rf"^\| (?:{header}) \|.*\n\|[-|]+\|\n(?:\|.*\n)+", re.MULTILINE)
    match = list(pattern.finditer(page))[table]
    first_cells = "".join(line.split("|")[1] for line in match[0].splitlines())
    names = set()
    for name in re.findall("`(.*?)`", first_cells):
        *methods, path = name.split(" ")
        names |= {name, *(f"{method} {path}" for method in methods)}  # `GET PATCH /v1/me` names two operations
    added = "".join(f"| `{name}` | {cells} |\n" for name, cells in rows.items() if name not in names)
    return page[: match.end()] + added + page[match.end() :]


if __name__ == "__main__":
    main()
