"""Checks of the texts for users, in the catalogues, in Python, and in the pages' scripts."""

import json
import re
from collections.abc import Iterator
from string import Formatter

from babel.messages.catalog import Catalog
from write_texts import DESK, OPTIONAL, SOURCE, SOURCES, catalogues, template  # type: ignore[import-not-found]

from wxauth.console.routes import declared_texts
from wxauth.service.app import create_api

CALL = re.compile(r"""\b(?:text|phrase|actOn|isText)\(([^(),{]*)|data-text=("[^"]*")""")
"""The places where a script or a page uses the text of a name."""
NAME = re.compile(r"""(?<!=== )['"]([\w.-]+)['"](?! in )""")

CHINESE = re.compile("[\u4e00-\u9fff]")
WITH_CHINESE = {
    "examples of the API": (
        *("apps/schemas.py", "clients/models.py", "oauth/routes.py", "sessions/list_queries.py"),
        *("site_logins/targets.py", "users/schemas.py", "web/schemas.py"),
    ),
    "WeChat's own words": (
        "checks/issuer.py",
        "checks/wechat.py",
        "login/login.py",
        "login_pages/texts.py",
        "wechat/messages.py",
    ),
    "what is read": ("import_export/lines.py", "wechat/received.py"),
    "both languages at once": ("console/sessions.py", "web/edge.py"),
}
"""The Python files of the service that contain Chinese, by what it is. Texts for users are in the catalogues."""
SIMULATED = (
    *("agent.py", "middleware.py", "own_command.py", "sites.py"),
    *("wechat/connect.py", "wechat/content_checks.py"),
)
"""The Python files of the desk that contain Chinese."""


def holes(text: str) -> set[str]:
    """Return the names of the placeholders in a template."""
    return {name.partition(".")[0] for _, name, *_ in Formatter().parse(text) if name}


def wrong_in_catalogue(catalog: Catalog, wanted: Catalog) -> Iterator[str]:
    """Yield the texts that are missing, marked as fuzzy, not used, or have other placeholders."""
    there = {(message.id, message.context): message for message in catalog if message.id}
    for message in wanted:
        found = there.pop((message.id, message.context), None)
        place = ":".join(map(str, message.locations[0])) if message.locations else ""
        if found is None or not found.string:
            if message.id and message.context != OPTIONAL:
                yield f"{place}: no translation of {message.id!r}"
        elif found.fuzzy:
            yield f"{place}: fuzzy translation of {message.id!r}"
        elif holes(str(message.id)) != holes(str(found.string)):
            yield f"{place}: other holes in the translation of {message.id!r}"
    yield from (f"nothing uses {text!r}" for text, _ in there)


def wrong_in_pages() -> Iterator[str]:
    """Yield the names of texts that a page's scripts use, but that do not exist."""
    declared = declared_texts(create_api()).keys()
    for path in (path for source in SOURCES for path in source.rglob("page/texts.json")):
        names = json.loads(path.read_text("utf-8")).keys() | declared
        for script in (*path.parent.glob("*.js"), *path.parent.glob("*.html")):
            for call in CALL.findall(script.read_text("utf-8")):
                yield from (
                    f"{script.name}: no text {name!r}" for name in NAME.findall("".join(call)) if name not in names
                )


def wrong_in_python() -> Iterator[str]:
    """Yield the files with Chinese that are not listed, and the listed files without it."""
    found = {path for source in SOURCES for path in source.rglob("*.py") if CHINESE.search(path.read_text("utf-8"))}
    listed = {SOURCE / file for files in WITH_CHINESE.values() for file in files} | {DESK / file for file in SIMULATED}
    yield from (
        f"{path.name}: Chinese must be in the catalogues, or in WITH_CHINESE" for path in sorted(found ^ listed)
    )


def wrong_languages() -> Iterator[str]:
    """Yield all faults. `scripts/texts` adds missing texts to the catalogues, and removes unused ones."""
    for source in SOURCES:
        wanted = template(source)
        for path, catalog in catalogues(source).items():
            if found := [f"{path.name}: {what}" for what in wrong_in_catalogue(catalog, wanted)]:
                yield from found
                yield f"run scripts/texts, and translate what it marks in {path.relative_to(SOURCE.parents[1])}"
    yield from wrong_in_python()
    yield from wrong_in_pages()


if __name__ == "__main__":
    print(*wrong_languages(), sep="\n")  # noqa: T201
