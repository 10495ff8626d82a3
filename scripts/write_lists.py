"""Write the rows that tables of guides lack, and the copies of the phone's client.

A row that an author has written stays. A row that is added has the words of the declaration, in the page's language.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Final

import click

from wxauth.cli import main as main_command
from wxauth.core.trail import EventType
from wxauth.core.users import PROFILE_FIELDS
from wxauth.i18n import Text, translate
from wxauth.import_export.lines import EXPECTED, Line
from wxauth.service.app import create_api
from wxauth.users.schemas import UserAnswer
from wxauth.web.answers import example_of
from wxauth.web.direct import DirectRoute

ROOT: Final = Path(__file__).parents[1]
ACCESS: Final = ROOT / "tests/web/operations.txt"
CLIENT: Final = ROOT / "clients/miniprogram"
AI_DEMO: Final = ROOT / "examples/miniprogram-ai"
BUILT: Final = frozenset({"dist", "node_modules"})
PAGES: Final = {"en": "docs", "zh-CN": "docs/zh"}
"""The folders of the guides in each language."""
_WITH_LISTS: Final = ("build/events", "start/import-file", "manage/privacy", "reference/http", "reference/commands")


def copies() -> Iterator[tuple[Path, Path]]:
    """Yield each copy below `examples/`, which WeChat's tools open as a folder of its own, with its original."""
    for file in CLIENT.glob("wxauth*.*s"):
        found = (ROOT / "examples").glob(f"**/{file.name}")
        yield from ((copy, file) for copy in found if BUILT.isdisjoint(copy.relative_to(ROOT).parts))
    yield ROOT / "examples/uni-app/src/config.js", ROOT / "examples/miniprogram/config.js"
    yield from ((AI_DEMO / "skills/orders-skill" / name, AI_DEMO / name) for name in ("auth.js", "teas.js"))


def guides() -> Iterator[tuple[Path, str]]:
    """Yield each guide with such a list, and its text with the complete list."""
    for language, folder in PAGES.items():
        page = {name.split("/")[1]: ROOT / folder / f"{name}.md" for name in _WITH_LISTS}
        texts = {name: path.read_text("utf-8") for name, path in page.items()}
        comma = ", " if language == "en" else "、"
        for place, rows in enumerate(_rows_of_events(language, comma)):
            texts["events"] = _completed(texts["events"], "type", rows, table=place)
        rules = {name: EXPECTED[name].translated(language) for name in Line.model_fields}
        texts["import-file"] = _completed(texts["import-file"], "field|字段", rules)
        profile = comma.join(f"`{name}`" for name in PROFILE_FIELDS)
        texts["privacy"] = re.sub(rf"(?m)^\| `nickname`({comma}`\w+`)*", f"| {profile}", texts["privacy"])
        texts["http"] = _with_members(texts["http"], example_of(UserAnswer))
        for place, rows in enumerate(_rows_of_operations(language)):
            texts["http"] = _completed(texts["http"], "method and path|方法与路径", rows, table=place)
        helps = {
            f"wxauth {' '.join(words)}": Text(text).translated(language) for words, text in _commands(main_command)
        }
        rows = {name: text.partition("\n\n")[0].replace("\n", " ") for name, text in helps.items()}
        texts["commands"] = _completed(texts["commands"], "command|命令", rows)
        yield from ((page[name], text) for name, text in texts.items())


def _rows_of_events(language: str, comma: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the cells of each type, for other services, and for the audit log."""
    sent: dict[str, str] = {}
    recorded: dict[str, str] = {}

    def cells(kind: EventType, names: Iterable[str]) -> str:
        return f"{comma.join(f'`{name}`' for name in names)} | {kind.meaning.translated(language)}"

    for kind in EventType:
        further = kind.data.difference(kind.sent or ())
        if kind.sent is not None:
            sent[kind] = cells(kind, kind.sent)
        if further or kind.sent is None:
            recorded[kind] = cells(kind, sorted(further))
    return sent, recorded


def _rows_of_operations(language: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the cells of each operation, with its users and its purpose.

    Operations for administrators are separate.
    """
    tables: tuple[dict[str, str], dict[str, str]] = {}, {}
    lines = (line.split() for line in ACCESS.read_text("utf-8").splitlines())
    access = {f"{method} {path}": who for method, path, _, who, *_ in lines}
    for route in create_api().routes:
        if isinstance(route, DirectRoute) and route.include_in_schema:
            for name in (f"{method} {route.path}" for method in route.methods or ()):
                summary = translate(route.summary, language)
                tables[route.path.startswith("/v1/admin/")][name] = f"`{access.get(name, '?')}` | {summary}"
    return tables


def _commands(command: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each command below this one, by its words, and the first paragraph of its help."""
    if not isinstance(command, click.Group):
        yield words, cleandoc(command.help or "")
        return
    with click.Context(command) as context:
        for name in command.list_commands(context):
            yield from _commands(command.resolve_command(context, [name])[1] or command, *words, name)


def _completed(text: str, header: str, rows: Mapping[str, str], *, table: int = 0) -> str:
    """Return the page with a row for each of these that its table lacks.

    `table` is the number of the table, among the tables whose header begins with `header`.
    """
    found = list(re.finditer(rf"^\| (?:{header}) \|.*\n\|[-|]+\|\n(?:\|.*\n)+", text, re.MULTILINE))[table]
    cells = re.findall("`(.*?)`", "".join(row.split("|")[1] for row in found[0].splitlines()))
    named = {*cells, *(f"{method} {words[-1]}" for words in map(str.split, cells) for method in words[:-1])}
    added = "".join(f"| `{name}` | {cells} |\n" for name, cells in rows.items() if name not in named)
    return text[: found.end()] + added + text[found.end() :]


def _with_members(text: str, user: Mapping[str, object]) -> str:
    """Return the page with all members of the user in its first JSON."""
    before, _, rest = text.partition("```json\n")
    shown, end, behind = rest.partition("\n  }\n}\n```")
    lacking = {name: value for name, value in user.items() if f'"{name}":' not in shown}
    added = "".join(f',\n    "{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in lacking.items())
    return f"{before}```json\n{shown}{added}{end}{behind}"


def main() -> None:
    """Write the files. Exit if a text has no translation yet, because its row in the Chinese guide would be English."""
    from check_languages import wrong_languages  # type: ignore[import-not-found]  # beside this script alone

    if wrong := [*wrong_languages()]:
        raise SystemExit("\n".join([*wrong, "Then run scripts/docs again."]))
    for page, text in guides():
        page.write_text(text, "utf-8")
    for copy, original in copies():
        shutil.copyfile(original, copy)


if __name__ == "__main__":
    main()
