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
"""The packages of the products, each of which has its own catalogues."""
_COMMANDS: Final = {SOURCE: main_command, DESK: desk_command}
"""The command of each product that has one."""
_EXTRACTORS: Final = [
    ("**.py", f"{__name__}:texts_of_python"),
    ("**/page/texts.json", f"{__name__}:texts_of_page"),
    ("**.csv", f"{__name__}:texts_of_table"),
    ("**.html", "jinja2"),
]
"""The functions that find the texts in the files of a product, by the pattern of the files' paths."""
_KEYWORDS: Final = {"_": None, "pgettext": ((1, "c"), 2)}
"""The functions that mark a text, in Babel's form. The first argument of `pgettext` is a context."""
OPTIONAL: Final = "click"
"""The context of click's texts. A catalogue need not translate them, because users never see some of them."""
_UNMARKED: Final = ("[OPTIONS]", "COMMAND [ARGS]...", "TEXT", "text", "integer", "integer range", "required")
"""The texts of click that click's own source does not mark for gettext."""

ExtractedText = tuple[int, str, str | tuple[str, str], list[str]]
"""A text in the form that Babel expects.

It consists of the number of the line, the function that marks the text, the text (or a tuple of its context and the
text), and the comments, of which there are none here.
"""


def texts_of_python(
    file: IO[bytes], keywords: Collection[str], *_arguments: object, **_options: object
) -> Iterator[ExtractedText]:
    """Yield the texts in a Python file. Babel's own extractor misses texts next to an f-string.

    A call to `pgettext` whose context and text are not both literals is skipped.

    Raises: ValueError, if a call to `_` does not contain exactly one literal string.
    """
    for node in ast.walk(ast.parse(file.read())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in keywords:
            continue
        function, literals = node.func.id, _literals_in(node)
        if function == "pgettext":
            if len(literals) == 2:
                context, text = literals
                yield node.lineno, function, (context, text), []
        elif len(literals) == 1:
            yield node.lineno, function, literals[0], []
        else:
            raise ValueError(f"{file.name}:{node.lineno}: {function} must have one literal text")


def _literals_in(call: ast.Call) -> list[str]:
    """Return the literal strings among the positional arguments of a call."""
    constants = (argument.value for argument in call.args if isinstance(argument, ast.Constant))
    return [value for value in constants if isinstance(value, str)]


def texts_of_table(file: IO[bytes], *_arguments: object, **_options: object) -> Iterator[ExtractedText]:
    """Yield the texts in a CSV file. They are the values in its last two columns that contain a space."""
    rows = enumerate(reader((line.decode() for line in file), delimiter="|"), 1)
    next(rows)  # the header
    for number, row in rows:
        for value in row[-2:]:
            if " " in value:
                yield number, "_", value, []


def texts_of_page(file: IO[bytes], *_arguments: object, **_options: object) -> Iterator[ExtractedText]:
    """Yield the texts of a page's scripts. The context of a text is its package and its name: `console.save`."""
    package = Path(file.name).parents[1].name
    for number, (name, text) in enumerate(json.load(file).items(), 2):  # each text is on its own line, after a brace
        yield number, "pgettext", (f"{package}.{name}", text), []


def template(source: Path) -> Catalog:
    """Return a catalogue without translations, with all texts of a product and the places where they are used.

    `source` is one of `SOURCES`.
    """
    catalogue = Catalog()
    for file, line, text, comments, context in extract_from_dir(source, _EXTRACTORS, keywords=_KEYWORDS):
        catalogue.add(text, locations=[(file, line)], auto_comments=comments, context=context)
    if source in _COMMANDS:
        for text in _help_texts(_COMMANDS[source]):
            catalogue.add(text, locations=[("cli", 0)])
    if source == SOURCE:
        for name in (*WORDS, *PROFILE_FIELDS):
            catalogue.add(name, locations=[("terminal.py", 0)], context="word")
        _add_texts_of_click(catalogue)
    return catalogue


def _help_texts(command: click.Command) -> Iterator[str]:
    """Yield the help texts of a command, of its options, and of its subcommands."""
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                _name, subcommand, _arguments = command.resolve_command(context, [name])
                yield from _help_texts(subcommand or command)
    for text in (getattr(part, "help", None) for part in (command, *command.params)):
        if text:
            yield cleandoc(text)  # before Python 3.13, docstrings are indented


def _add_texts_of_click(catalogue: Catalog) -> None:
    """Add the texts of the library click, with the context `OPTIONAL`."""
    for text in _UNMARKED:
        catalogue.add(text, context=OPTIONAL)
    for path in Path(str(click.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_", "ngettext"):
                for text in _literals_in(node):
                    catalogue.add(text, locations=[(path.name, node.lineno)], context=OPTIONAL)


def catalogues(source: Path) -> dict[Path, Catalog]:
    """Return the catalogues of a product as they are stored, by their paths."""
    stored = {}
    for path in source.glob("locale/*/LC_MESSAGES/*.po"):
        with path.open("rb") as file:
            stored[path] = read_po(file, locale=path.parts[-3])
    return stored


def main() -> None:
    """Update the catalogues of all products."""
    for source in SOURCES:
        _update_catalogues(source)


def _update_catalogues(source: Path) -> None:
    """Add new texts to a product's catalogues, and remove unused texts.

    If a new text resembles a removed one, it gets the removed text's translation, which is marked as `fuzzy`.
    """
    used = template(source)
    for path, catalogue in catalogues(source).items():
        catalogue.update(used)
        untranslated = [message for message in catalogue if message.fuzzy or not message.string]
        for message in untranslated:
            if message.context == OPTIONAL:
                catalogue.delete(message.id, message.context)
        entries = BytesIO()
        write_po(
            entries, catalogue, width=120, omit_header=True, no_location=True, sort_output=True, ignore_obsolete=True
        )
        # The stored header is kept, because Babel's own header contains the time, which would make each merge conflict.
        header = path.read_text("utf-8").partition("\n\n")[0]
        path.write_text(f"{header}\n\n{entries.getvalue().decode().strip()}\n", "utf-8")


if __name__ == "__main__":
    main()
