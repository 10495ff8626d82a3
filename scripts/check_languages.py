"""Find faults in the texts for users: in the catalogues, in Python files, and in the scripts of pages.

Run as a script, it prints the faults, each in a line. It does not check the guides, which `check_texts.py` checks.
"""

import json
import re
from collections.abc import Iterator
from string import Formatter
from typing import Final

from babel.messages.catalog import Catalog
from write_texts import DESK, OPTIONAL, SOURCE, SOURCES, catalogues, template  # type: ignore[import-not-found]

from wxauth.console.routes import declared_texts
from wxauth.service.app import create_api

_USE_OF_TEXT: Final = re.compile(r"""\b(?:text|phrase|actOn|isText)\(([^(),{]*)|data-text=("[^"]*")""")
"""The pattern of a place where a page uses a text by its name.

In a script, it is the first argument of a function, for example in `text(isNew ? 'create' : 'save')`. In HTML, it is
the attribute `data-text`.
"""
_TEXT_NAME: Final = re.compile(r"""(?<!=== )['"]([\w.-]+)['"](?! in )""")
"""The pattern of a text's name in such a place.

A string that the script only compares (`kind === 'x'`) or looks up (`'x' in names`) is not a name.
"""

_CHINESE: Final = re.compile("[\u4e00-\u9fff]")
_SERVICE_FILES_WITH_CHINESE: Final = {
    "examples of the API": (
        *("apps/schemas.py", "clients/models.py", "sites/oauth_routes.py", "sessions/list_queries.py"),
        *("sites/targets.py", "users/schemas.py", "web/schemas.py"),
    ),
    "WeChat's own words": (
        "checks/issuer.py",
        "checks/wechat.py",
        "login/schemas.py",
        "sites/pages/texts.py",
        "wechat/messages.py",
    ),
    "words that wxauth reads": ("import_export/lines.py", "wechat/received.py"),
    "texts in both languages at once": ("console/sessions.py", "web/edge.py"),
}
"""The Python files of the service that may contain Chinese, by the kind of the Chinese text.

All other texts for users are in English, and their translations are in the catalogues.
"""
_DESK_FILES_WITH_CHINESE: Final = (
    *("agent.py", "middleware.py", "own_command.py", "sites.py"),
    *("wechat/connect.py", "wechat/content_checks.py"),
)
"""The Python files of the desk that may contain Chinese, for example because they simulate WeChat's pages."""


def text_faults() -> Iterator[str]:
    """Yield all faults. `scripts/texts` adds missing texts to the catalogues, and removes unused texts."""
    for source in SOURCES:
        used = template(source)
        for path, catalogue in catalogues(source).items():
            faults = list(_faults_in_catalogue(catalogue, used))
            yield from (f"{path.name}: {fault}" for fault in faults)
            if faults:
                yield f"run scripts/texts, and translate what it marks in {path.relative_to(SOURCE.parents[1])}"
    yield from _faults_in_python()
    yield from _faults_in_pages()


def _faults_in_catalogue(catalogue: Catalog, used: Catalog) -> Iterator[str]:
    """Yield the faults in a catalogue. `used` contains the texts that the product uses.

    A text is at fault if it is not translated or not used, or if its translation is fuzzy or has other placeholders.
    """
    unused = {(message.id, message.context): message for message in catalogue if message.id}
    for message in used:
        translated = unused.pop((message.id, message.context), None)
        place = ":".join(str(part) for part in message.locations[0]) if message.locations else ""
        if translated is None or not translated.string:
            if message.id and message.context != OPTIONAL:  # the message without an id is the catalogue's header
                yield f"{place}: no translation of {message.id!r}"
        elif translated.fuzzy:
            yield f"{place}: fuzzy translation of {message.id!r}"
        elif _placeholders_in(str(message.id)) != _placeholders_in(str(translated.string)):
            yield f"{place}: other placeholders in the translation of {message.id!r}"
    yield from (f"nothing uses {text!r}" for text, _context in unused)


def _placeholders_in(template: str) -> set[str]:
    """Return the names of the placeholders in a template, for example `app` for `{app.title}`."""
    return {name.partition(".")[0] for _text, name, _format, _conversion in Formatter().parse(template) if name}


def _faults_in_python() -> Iterator[str]:
    """Yield the Python files that contain Chinese but are not listed, and the listed files without Chinese."""
    chinese = {path for source in SOURCES for path in source.rglob("*.py") if _CHINESE.search(path.read_text("utf-8"))}
    listed = {SOURCE / name for names in _SERVICE_FILES_WITH_CHINESE.values() for name in names}
    listed |= {DESK / name for name in _DESK_FILES_WITH_CHINESE}
    for path in sorted(chinese - listed):
        yield f"{path.name}: Chinese must be in the catalogues, or the file must be listed in check_languages.py"
    for path in sorted(listed - chinese):
        yield f"{path.name}: contains no Chinese, so it must not be listed in check_languages.py"


def _faults_in_pages() -> Iterator[str]:
    """Yield the names that pages use although there is no text with this name.

    The texts of a page are in the file `texts.json` next to its scripts. The console also uses texts that other modules
    declare.
    """
    declared = declared_texts(create_api()).keys()
    for source in SOURCES:
        for texts in source.rglob("page/texts.json"):
            known = json.loads(texts.read_text("utf-8")).keys() | declared
            for file in (*texts.parent.glob("*.js"), *texts.parent.glob("*.html")):
                for argument, attribute in _USE_OF_TEXT.findall(file.read_text("utf-8")):
                    for name in _TEXT_NAME.findall(argument or attribute):
                        if name not in known:
                            yield f"{file.name}: no text {name!r}"


if __name__ == "__main__":
    print(*text_faults(), sep="\n")  # noqa: T201
