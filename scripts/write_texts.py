"""Write the texts of each product into its catalogues. New texts have no translation yet."""

import ast
import json
from collections.abc import Collection, Iterator
from csv import reader
from inspect import cleandoc
from io import BytesIO
from pathlib import Path
from typing import IO, Final

import click
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from wxauth.cli import main as main_command
from wxauth.core.users import PROFILE_FIELDS
from wxauth.terminal import WORDS
from wxauth_desk.cli import main as desk_command

ROOT: Final = Path(__file__).parents[1]
SOURCE: Final = ROOT / "src/wxauth"
GUARD: Final = ROOT / "clients/python/src/wxauth_guard"
DESK: Final = ROOT / "desk/src/wxauth_desk"
SOURCES: Final = (SOURCE, GUARD, DESK)
"""The products, each of which has its own catalogues."""
METHODS: Final = [
    ("**.py", f"{__name__}:of_python"),
    ("**/page/texts.json", f"{__name__}:of_page"),
    ("**.csv", f"{__name__}:of_table"),
    ("**.html", "jinja2"),
]
"""The functions that find texts in the files of a product."""
OPTIONAL: Final = "click"
"""The context of texts that a catalogue may lack, because click has some texts that users never see."""
UNMARKED: Final = ("[OPTIONS]", "COMMAND [ARGS]...", "TEXT", "text", "integer", "integer range", "required")
"""The texts of click that its own source does not mark for gettext."""
Found = Iterator[tuple[int, str, str | tuple[str, str], list[str]]]
"""The line of each text, the function that marks it, the text (after its context, if any), and no comments."""


def of_python(file: IO[bytes], keywords: Collection[str], *_: object, **__: object) -> Found:
    """Return the texts in Python. Babel's own extractor misses texts next to an f-string. Raises: ValueError."""
    for node in ast.walk(ast.parse(file.read())):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[*arguments]) if name in keywords:
                literals = [it.value for it in arguments if isinstance(it, ast.Constant) and isinstance(it.value, str)]
                if name == "pgettext" and len(literals) == 2:
                    yield node.lineno, name, (literals[0], literals[1]), []
                elif name == "pgettext":
                    pass
                elif len(literals) != 1:
                    raise ValueError(f"{file.name}:{node.lineno}: {name} must have one literal text")
                else:
                    yield node.lineno, name, literals[0], []


def of_table(file: IO[bytes], *_: object, **__: object) -> Found:
    """Return the texts in a table. They are the values in its last two columns that contain a space."""
    for number, row in enumerate(reader((line.decode() for line in file), delimiter="|"), 1):
        yield from ((number, "_", text, []) for text in row[-2:] if number > 1 and " " in text)


def of_page(file: IO[bytes], *_: object, **__: object) -> Found:
    """Return the texts of a page's scripts, each with the page and its name as the context."""
    page = Path(file.name).parents[1].name
    for number, (name, text) in enumerate(json.load(file).items(), 2):
        yield number, "pgettext", (f"{page}.{name}", text), []


def of_commands(command: click.Command) -> Iterator[str]:
    """Yield the help of a command, of its subcommands, and of their options."""
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                yield from of_commands(command.resolve_command(context, [name])[1] or command)
    helps = (getattr(it, "help", None) for it in (command, *command.params))
    yield from (cleandoc(text) for text in helps if text)  # Python 3.13 removes indents by itself


def template(source: Path) -> Catalog:
    """Return all texts of a product, with the places where they are used."""
    catalog = Catalog()
    found = extract_from_dir(source, METHODS, keywords={"_": None, "pgettext": ((1, "c"), 2)})
    for file, line, message, comments, context in found:
        catalog.add(message, locations=[(file, line)], auto_comments=comments, context=context)
    commands = {SOURCE: main_command, DESK: desk_command}
    if source in commands:
        for text in of_commands(commands[source]):
            catalog.add(text, locations=[("cli", 0)])
    if source != SOURCE:
        return catalog
    for name in (*WORDS, *PROFILE_FIELDS):
        catalog.add(name, locations=[("terminal.py", 0)], context="word")
    for text in UNMARKED:
        catalog.add(text, context=OPTIONAL)
    for path in Path(str(click.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_", "ngettext"):
                texts = [it.value for it in node.args if isinstance(it, ast.Constant) and isinstance(it.value, str)]
                for text in texts:
                    catalog.add(text, locations=[(path.name, node.lineno)], context=OPTIONAL)
    return catalog


def catalogues(source: Path) -> dict[Path, Catalog]:
    """Return each catalogue of a product in its present state."""
    found = {}
    for path in source.glob("locale/*/LC_MESSAGES/*.po"):
        with path.open("rb") as file:
            found[path] = read_po(file, locale=path.parts[-3])
    return found


def main() -> None:
    """Write the catalogues. A text that resembles a removed one gets its translation, marked as `fuzzy`."""
    for source in SOURCES:
        update(source)


def update(source: Path) -> None:
    """Write the catalogues of one product."""
    found = template(source)
    for path, catalog in catalogues(source).items():
        catalog.update(found)
        for message in [it for it in catalog if it.context == OPTIONAL and (it.fuzzy or not it.string)]:
            catalog.delete(message.id, message.context)
        written = BytesIO()
        write_po(
            written, catalog, width=120, omit_header=True, no_location=True, sort_output=True, ignore_obsolete=True
        )
        # Kept, because Babel's own header has the time, so that merges would conflict.
        header = path.read_text("utf-8").partition("\n\n")[0]
        path.write_text(f"{header}\n\n{written.getvalue().decode().strip()}\n", "utf-8")


if __name__ == "__main__":
    main()
