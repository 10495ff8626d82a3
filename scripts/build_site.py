"""Makes a searchable site of the guides in both languages, in `build/site`, or the folder that is given.

Zensical builds it, the successor of Material for MkDocs by the same people: MkDocs has had no release since 2024, and
Material only mends faults. A link to a page or heading that is not there fails the build. Pages load nothing from other
hosts. `SITE_SOURCE` may have a URL, such as https://github.com/OWNER/NAME/blob/main: links to files that are not
guides then lead there, otherwise they are text. `SECURITY_CONTACT` may have a URI for `/.well-known/security.txt`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
BUILT: Final = ROOT / "build" / "site"
ZENSICAL: Final = ROOT / ".venv-site" / "bin" / "zensical"

LANGUAGES: Final = {"en": "", "zh": ".zh-CN"}
"""The languages of the theme, with what stands before `.md`. The pages of the second are in a folder of its name."""

_TAGS: Final = {"中文": "zh-CN", "English": "en"}
"""What a link to the other language says, with its language tag."""
_FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
_GROUP: Final = re.compile(r"^## (.+)$|^\| [^|]+ \| (\[.*\)) \|$", re.MULTILINE)
_DIAGRAM: Final = re.compile(r"^```mermaid$", re.MULTILINE)
"""Diagrams stay text: the theme would load the program that draws them from another host."""

_COLOURS: Final = """\
:root, [data-md-color-scheme] {
  --md-primary-fg-color: #147a45;
  --md-accent-fg-color: #147a45;
  --md-typeset-a-color: #147a45;
}
[data-md-color-scheme="slate"] {
  --md-accent-fg-color: #6cc998;
  --md-typeset-a-color: #6cc998;
}
.md-option {
  display: none;
}
"""
"""Our green, as on the console: the theme's has a contrast of 2.8 on white, and readers need 4.5 (WCAG 2.2, 1.4.3).
The theme's switch of colours, which the system sets here, could be reached by Tab, and was not seen."""


def write_source(language: str, folder: Path, *, source: str | None = None) -> None:
    """Write the pages of a language, and the settings of its site, into a folder."""
    suffix = LANGUAGES[language]
    pages = folder / "docs"
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.md", "*.json", "*.txt"))
    for file in sorted(DOCS.glob("*.md")):
        name, is_chinese = re.subn(r"\.zh-CN\.md$", ".md", file.name)
        is_alone = not is_chinese and not file.with_suffix(".zh-CN.md").exists()
        if bool(is_chinese) == bool(suffix) or is_alone:
            (pages / name).write_text(page(file, language, source=source), "utf-8")
    for file in sorted((DOCS / "decisions").glob("*.md")):
        (pages / "decisions" / file.name).write_text(page(file, language, source=source), "utf-8")
    (pages / "colours.css").write_text(_COLOURS, "utf-8")
    (folder / "zensical.toml").write_text(settings(language), "utf-8")


def page(file: Path, language: str, *, source: str | None = None) -> str:
    """A guide as a page of the site."""

    def link(found: re.Match[str]) -> str:
        mark, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if not target or target.startswith(("http:", "https:", "mailto:")):
            return found[0]
        there = (file.parent / target).resolve()
        if not there.is_relative_to(DOCS) or there == DOCS or not there.is_file():
            where = "" if there == ROOT else there.relative_to(ROOT)
            return f"[{text}]({source}/{where}{anchor})" if source else text
        if there.suffix != ".md":
            return f"{mark}[{text}]({target})"
        if text in ("中文", "English"):
            return f'<a href="{_of_other_language(language, there)}" hreflang="{_TAGS[text]}">{text}</a>'
        return f"{mark}[{text}]({target.replace('.zh-CN.md', '.md')}{anchor})"

    parts = _FENCED.split(_DIAGRAM.sub("```text", file.read_text("utf-8")))
    return "".join(part if place % 2 else _LINK.sub(link, part) for place, part in enumerate(parts))


def _of_other_language(language: str, there: Path) -> str:
    """The address of a page of the other language, seen from a page beside it."""
    name = re.sub(r"(\.zh-CN)?\.md$", ".html", there.name).replace("README.html", "index.html")
    return f"zh/{name}" if language == "en" else f"../{name}"


def settings(language: str) -> str:
    """The settings of a language's site, in TOML."""
    suffix = LANGUAGES[language]
    groups: list[tuple[str, list[str]]] = []
    for title, links in _GROUP.findall((DOCS / f"README{suffix}.md").read_text("utf-8")):
        if title:
            groups.append((title, []))
        else:
            files = re.findall(r"\]\(([^)#]+\.md)\)", links)
            groups[-1][1].extend(name.replace(".zh-CN", "") for name in files if not name.startswith(".."))
    nav = [f"{{{_quoted(title)} = [{', '.join(map(_quoted, files))}]}}" for title, files in groups]
    home, other = ("", "zh/") if language == "en" else ("../", "")
    return f"""\
[project]
site_name = "wxauth"
docs_dir = "docs"
site_dir = "out"
use_directory_urls = false
copyright = "Apache-2.0"
extra_css = ["colours.css"]
nav = ["README.md", {", ".join(nav)}]

[project.theme]
language = "{language}"
font = false
logo = "logo.svg"
favicon = "logo.svg"
features = ["navigation.sections", "navigation.top", "content.code.copy", "search.highlight"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
primary = "green"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
primary = "green"

[[project.extra.alternate]]
name = "English"
link = "{home or "./"}index.html"
lang = "en"

[[project.extra.alternate]]
name = "中文"
link = "{other or "./"}index.html"
lang = "zh"

[project.markdown_extensions.tables]
[project.markdown_extensions.attr_list]
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.superfences]
[project.markdown_extensions.toc]
permalink = true
slugify = {{object = "pymdownx.slugs.slugify", kwds = {{case = "lower"}}}}
"""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def build(folder: Path, *, source: str | None = None) -> None:
    """Build the site into a folder, which is replaced. Raises: CalledProcessError if a link is broken."""
    shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory() as place:
        for language in LANGUAGES:
            made = Path(place) / language
            made.mkdir()
            write_source(language, made, source=source)
            subprocess.run([ZENSICAL, "build", "--strict"], cwd=made, check=True)  # noqa: S603 - our own program
            shutil.copytree(made / "out", folder / ("" if language == "en" else language))
    if contact := os.environ.get("SECURITY_CONTACT"):
        expires = datetime.now(UTC) + timedelta(days=360)
        (folder / ".well-known").mkdir()
        (folder / ".well-known/security.txt").write_text(
            f"Contact: {contact}\nExpires: {expires:%Y-%m-%dT%H:%M:%SZ}\n", "utf-8"
        )


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else BUILT, source=os.environ.get("SITE_SOURCE"))
