"""Make a searchable site of the guides in both languages, in `build/site` or the given folder.

The site is built with Zensical, the successor of Material for MkDocs by the same authors, because MkDocs has had no
release since 2024, and Material only gets fixes. A link to a missing page or heading fails the build. Pages load
nothing from other hosts. `SITE_SOURCE` can be a URL, such as https://github.com/OWNER/NAME/blob/main, which links to
files that are not guides then lead to. Otherwise, such links become text. `SECURITY_CONTACT` can be a URI for
`/.well-known/security.txt`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
BUILT: Final = ROOT / "build" / "site"
ZENSICAL: Final = ROOT / ".venv-site" / "bin" / "zensical"

LANGUAGES: Final = {"en": DOCS, "zh": DOCS / "zh"}
"""The languages of the theme, with the folders of their guides. On the site, the second has a folder with its name."""

_TAGS: Final = {"中文": "zh-CN", "English": "en"}
"""The text of a link to the other language, with its language tag."""
_FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
_GROUP: Final = re.compile(r"^## (.+)$|^\| [^|]+ \| (\[.*\)) \|$", re.MULTILINE)
_TEST: Final = re.compile(r"`(test_\w+)`")
_DIAGRAM: Final = re.compile(r"^```mermaid$", re.MULTILINE)
"""The beginning of a diagram.

Diagrams stay text, because the theme would load the program that draws them from another host.
"""

_REPLAYED: Final = {
    "code": ("the phone asks WeChat for a code", "手机向微信取 code"),
    "login": ("the phone sends it to wxauth", "手机把 code 发给 wxauth"),
    "wechat": ("wxauth exchanges it, once", "wxauth 用它换取身份，只换一次"),
    "tokens": ("and answers with tokens; the session is in PostgreSQL", "返回令牌；会话已写入 PostgreSQL"),
    "service": ("your service knows who is calling", "你的服务由此知道请求来自谁"),
}
"""The steps of `docs/site/login.json`, in both languages."""
LONGEST_LINE: Final = 80
_BUTTONS: Final = {"en": ("Replay", "Next step"), "zh": ("重放", "下一步")}
_SCHEMES: Final = {
    "en": ("Use light colours", "Use dark colours", "Use the system's colours"),
    "zh": ("使用浅色", "使用深色", "跟随系统"),
}
"""The colour schemes of the button in the head, at first, after one press, and after two."""
_SEARCH_IN_CHINESE: Final = {
    '`${new Intl.NumberFormat("en-US").format(i)} ${i===1?"result":"results"}`': "`${i} 条结果`",
    '"No results"': '"没有结果"',
    '"Loading search\\u2026"': '"正在加载……"',
    'children:"Filters"': 'children:"筛选"',
    'children:"Tags"': 'children:"标签"',
    'placeholder:"Search"': 'placeholder:"搜索"',
    '"aria-label":"Search results"': '"aria-label":"搜索结果"',
    '"aria-label":"Search"': '"aria-label":"搜索"',
    '"aria-label":"Filters"': '"aria-label":"筛选"',
    '"aria-label":"Close search"': '"aria-label":"关闭搜索"',
}
"""The texts of the theme's search that exist only in English. If a new version changes one, the build fails."""


def write_source(language: str, folder: Path, *, source: str | None = None) -> None:
    """Write the pages of a language, and the settings of its site, into a folder."""
    pages = folder / "docs"
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.md", "*.json", "*.txt", "zh"))
    login = replay(language)
    for name in sorted({_name(file) for file in DOCS.rglob("*.md")}):
        own, place = LANGUAGES[language] / name, pages / _place(name)
        text = page(own if own.exists() else DOCS / name, language, source=source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace("<!-- login -->", login), "utf-8")
    (folder / "zensical.toml").write_text(settings(language), "utf-8")


def replay(language: str) -> str:
    """Return the recorded login, as a list of its steps."""
    column = tuple(LANGUAGES).index(language)
    items = ""
    for step in json.loads((DOCS / "site/login.json").read_text("utf-8")):
        sent = {name: step[name] for name in ("body", "answer") if name in step}
        shown = "\n".join(_json(value) for value in sent.values())
        title = f"<strong>{escape(step['request'])}</strong>: {_REPLAYED[step['step']][column]}"
        items += f"<li><p>{title}</p><pre><code>{escape(shown)}</code></pre></li>\n"
    buttons = "".join(f'<button type="button" class="md-button">{each}</button>' for each in _BUTTONS[language])
    return f'<div class="replay-buttons" hidden>{buttons}</div>\n<ol class="replay">\n{items}</ol>'


def _json(value: Any) -> str:
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) <= LONGEST_LINE else json.dumps(value, ensure_ascii=False, indent=1)


def _name(file: Path) -> str:
    """Return the path of a guide or picture below the folder of its language."""
    folder = next(each for each in reversed(LANGUAGES.values()) if file.is_relative_to(each))
    return str(file.relative_to(folder))


def _place(name: str) -> str:
    """Return the file of a guide on the site, where the list of all guides is not the front page."""
    return {"README.md": "guides.md", "site/home.md": "index.md"}.get(name, name)


def page(file: Path, language: str, *, source: str | None = None) -> str:
    """Return a guide as a page of the site."""

    def breakable(found: re.Match[str]) -> str:
        return f"<code>{found[1].replace('_', '&#95;<wbr>')}</code>"

    def link(found: re.Match[str]) -> str:
        mark, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        if not target or target.startswith(("http:", "https:", "mailto:")):
            return found[0]
        there = (file.parent / target).resolve()
        here = Path(_place(_name(file))).parent
        if there.parent == ROOT and there.name.startswith("README"):
            return f"[{text}]({os.path.relpath('index.md', here)})"
        if not there.is_relative_to(DOCS) or there == DOCS or not there.is_file():
            where = "" if there == ROOT else there.relative_to(ROOT)
            return f"[{text}]({source}/{where}{anchor})" if source else text
        place = _place(_name(there))
        if text in _TAGS:
            other = os.path.relpath(f"zh/{place}" if language == "en" else f"../{place}", here)
            return f'<a href="{other.removesuffix(".md")}.html" hreflang="{_TAGS[text]}">{text}</a>'
        return f"{mark}[{text}]({os.path.relpath(place, here)}{anchor})"

    parts = _FENCED.split(_DIAGRAM.sub("```text", file.read_text("utf-8")))
    return "".join(
        part if place % 2 else _TEST.sub(breakable, _LINK.sub(link, part)) for place, part in enumerate(parts)
    )


def settings(language: str) -> str:
    """Return the settings of a language's site, in TOML."""
    listing = LANGUAGES[language] / "README.md"
    groups: list[tuple[str, list[str]]] = []
    for title, links in _GROUP.findall(listing.read_text("utf-8")):
        if title:
            groups.append((title, []))
        else:
            files = ((listing.parent / name).resolve() for name in re.findall(r"\]\(([^)#]+\.md)\)", links))
            groups[-1][1].extend(_name(file) for file in files if file.is_relative_to(DOCS))
    nav = [f"{{{_quoted(title)} = [{', '.join(map(_quoted, files))}]}}" for title, files in groups]
    home, other = ("", "zh/") if language == "en" else ("../", "")
    return f"""\
[project]
site_name = "wxauth"
docs_dir = "docs"
site_dir = "out"
use_directory_urls = false
copyright = "Apache-2.0"
extra_css = ["site/site.css"]
extra_javascript = ["site/site.js"]
nav = ["index.md", "guides.md", {", ".join(nav)}]

[project.theme]
language = "{language}"
font = false
logo = "logo.svg"
favicon = "logo.svg"
features = ["navigation.sections", "navigation.top", "content.code.copy", "search.highlight"]

{"".join(_palettes(language))}
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


def _palettes(language: str) -> Iterator[str]:
    """Yield the colour schemes, first the system's, then the schemes that the button in the head selects."""
    looks = (("", "", "sun-moon"), (": light", "default", "sun"), (": dark", "slate", "moon"))
    for name, (media, scheme, icon) in zip(_SCHEMES[language], looks, strict=True):
        yield f"""\
[[project.theme.palette]]
media = "(prefers-color-scheme{media})"
{f'scheme = "{scheme}"' if scheme else ""}
primary = "green"
toggle.icon = "lucide/{icon}"
toggle.name = "{name}"

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
            shutil.copytree(made / "out", folder / ("" if language == "en" else language), dirs_exist_ok=True)
    _search_in_chinese(folder / "zh")
    if contact := os.environ.get("SECURITY_CONTACT"):
        expires = datetime.now(UTC) + timedelta(days=360)
        (folder / ".well-known").mkdir()
        (folder / ".well-known/security.txt").write_text(
            f"Contact: {contact}\nExpires: {expires:%Y-%m-%dT%H:%M:%SZ}\n", "utf-8"
        )


def _search_in_chinese(folder: Path) -> None:
    (script,) = folder.glob("assets/javascripts/bundle.*.js")
    text = script.read_text("utf-8")
    for english, chinese in _SEARCH_IN_CHINESE.items():
        assert english in text, f"the theme says {english} no more"
        text = text.replace(english, chinese)
    script.write_text(text, "utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else BUILT, source=os.environ.get("SITE_SOURCE"))
