"""Build a searchable site of the guides in both languages, in `build/site` or in the given folder.

Zensical builds the site. It is by the authors of Material for MkDocs. We use Zensical instead of MkDocs and Material,
because MkDocs has had no release since 2024, and Material receives only fixes. The build fails if a link leads to a
missing page or heading. The pages load nothing from other hosts.

Two environment variables are optional:

- `SITE_SOURCE` is the URL of the repository's files, such as https://github.com/OWNER/NAME/blob/main. Links to files
  that are not guides lead there. Without this variable, such links become plain text.
- `SECURITY_CONTACT` is the URI of the contact in `/.well-known/security.txt`, such as mailto:security@example.com.
  Without this variable, the site has no such file.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
BUILT: Final = ROOT / "build" / "site"
ZENSICAL: Final = ROOT / ".venv-site" / "bin" / "zensical"

LANGUAGES: Final = {"en": DOCS, "zh": DOCS / "zh"}
"""The folder of the guides in each language. On the site, the Chinese pages are in the folder `zh`."""
_FRONT_PAGE: Final = "index.md"
_SITE_NAMES: Final = {"README.md": "guides.md", "site/home.md": _FRONT_PAGE}
"""The names on the site of the pages whose names differ from the guides' names."""

_TAGS: Final = {"中文": "zh-CN", "English": "en"}
"""The language tags of the other language, by the text of the links to it."""
_CODE_BLOCK: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
"""The pattern of a code block. It is a group, so that `split` keeps the code blocks."""
_LINK: Final = re.compile(
    r"(?P<mark>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)"
)
"""The pattern of a link or, with the mark `!`, of a picture. The text can contain brackets."""
_HEADING_OR_ROW: Final = re.compile(r"^## (?P<heading>.+)$|^\| [^|]+ \| (?P<links>\[.*\)) \|$", re.MULTILINE)
"""The pattern of a heading in the list of guides, or of a table row whose second cell contains links."""
_TEST_NAME: Final = re.compile(r"`(test_\w+)`")
_DIAGRAM: Final = re.compile(r"^```mermaid$", re.MULTILINE)
"""The pattern of a diagram's first line.

On the site, diagrams are shown as text, because the theme would load the program that draws them from another host.
"""

_REPLAYED: Final = {
    "code": ("the phone asks WeChat for a code", "手机向微信取 code"),
    "login": ("the phone sends it to wxauth", "手机把 code 发给 wxauth"),
    "wechat": ("wxauth exchanges it, once", "wxauth 用它换取身份，只换一次"),
    "tokens": ("and answers with tokens; the session is in PostgreSQL", "返回令牌；会话已写入 PostgreSQL"),
    "service": ("your service knows who is calling", "你的服务由此知道请求来自谁"),
}
"""The descriptions of the steps in `docs/site/login.json`, in English and Chinese."""
_MAX_LINE_LENGTH: Final = 80
"""The length, in characters, of the longest JSON that the recorded login shows in one line."""
_REPLAY_BUTTONS: Final = {"en": ("Replay", "Next step"), "zh": ("重放", "下一步")}
_COLOUR_BUTTON: Final = {
    "en": ("Use light colours", "Use dark colours", "Use the system's colours"),
    "zh": ("使用浅色", "使用深色", "跟随系统"),
}
"""The labels of the button in the header that changes the colours: at first, after one press, and after two."""
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
"""The Chinese translations of the texts in the theme's search, which exist only in English.

If a new version of the theme changes one of the English texts, the build fails.
"""


def write_source(language: str, folder: Path, *, source: str | None = None) -> None:
    """Write the pages of a language, and the settings of its site, into a folder. `source` is as in `page`."""
    pages = folder / "docs"
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.md", "*.json", "*.txt", "zh"))
    login = replay(language)
    for name in sorted({_name(file) for file in DOCS.rglob("*.md")}):
        translated = LANGUAGES[language] / name
        guide = translated if translated.exists() else DOCS / name  # some guides exist only in English
        text = page(guide, language, source=source).replace("<!-- login -->", login)
        file = pages / _SITE_NAMES.get(name, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    (folder / "zensical.toml").write_text(settings(language), "utf-8")


def replay(language: str) -> str:
    """Return the recorded login in HTML, as a list of its steps with two buttons.

    The buttons are hidden until the page's script shows them.
    """
    column = tuple(LANGUAGES).index(language)
    items = ""
    for step in json.loads((DOCS / "site/login.json").read_text("utf-8")):
        bodies = "\n".join(_json(step[name]) for name in ("body", "answer") if name in step)
        title = f"<strong>{escape(step['request'])}</strong>: {_REPLAYED[step['step']][column]}"
        items += f"<li><p>{title}</p><pre><code>{escape(bodies)}</code></pre></li>\n"
    buttons = "".join(
        f'<button type="button" class="md-button">{label}</button>' for label in _REPLAY_BUTTONS[language]
    )
    return f'<div class="replay-buttons" hidden>{buttons}</div>\n<ol class="replay">\n{items}</ol>'


def _json(value: Any) -> str:
    """Return a value as JSON in one line or, if that line would be too long, in several lines."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= _MAX_LINE_LENGTH else json.dumps(value, ensure_ascii=False, indent=1)


def _name(file: Path) -> str:
    """Return the path of a guide or picture, relative to the folder of its language."""
    folder = LANGUAGES["zh"] if file.is_relative_to(LANGUAGES["zh"]) else DOCS
    return str(file.relative_to(folder))


def _site_name(file: Path) -> str:
    """Return the path of a guide or picture on the site of its language."""
    name = _name(file)
    return _SITE_NAMES.get(name, name)


def page(guide: Path, language: str, *, source: str | None = None) -> str:
    """Return a guide as a page of the site, in Markdown.

    `language` is the language of the site. `source` is the URL of the repository's files; None to turn links to files
    that are not guides into plain text.
    """
    site_link = partial(_site_link, guide=guide, language=language, source=source)
    parts = _CODE_BLOCK.split(_DIAGRAM.sub("```text", guide.read_text("utf-8")))
    for number in range(0, len(parts), 2):  # the parts with odd numbers are code blocks
        parts[number] = _TEST_NAME.sub(_breakable, _LINK.sub(site_link, parts[number]))
    return "".join(parts)


def _site_link(link: re.Match[str], *, guide: Path, language: str, source: str | None) -> str:
    """Return a guide's link in the form that it has on the site. The arguments are as in `page`."""
    text, target, anchor = link["text"], link["target"], link["anchor"] or ""
    if not target or target.startswith(("http:", "https:", "mailto:")):
        return link[0]
    file = (guide.parent / target).resolve()
    folder = Path(_site_name(guide)).parent
    if file.parent == ROOT and file.name.startswith("README"):
        return f"[{text}]({os.path.relpath(_FRONT_PAGE, folder)})"
    if not file.is_relative_to(DOCS) or not file.is_file():
        if not source:
            return text
        path = "" if file == ROOT else file.relative_to(ROOT)
        return f"[{text}]({source}/{path}{anchor})"
    name = _site_name(file)
    if text in _TAGS:
        # Zensical builds a site for each language, so it would report a Markdown link to the other site as broken.
        other_page = os.path.relpath(f"zh/{name}" if language == "en" else f"../{name}", folder)
        return f'<a href="{other_page.removesuffix(".md")}.html" hreflang="{_TAGS[text]}">{text}</a>'
    return f"{link['mark']}[{text}]({os.path.relpath(name, folder)}{anchor})"


def _breakable(name: re.Match[str]) -> str:
    """Return the name of a test as code that a browser can break after each underscore."""
    return f"<code>{name[1].replace('_', '&#95;<wbr>')}</code>"


def settings(language: str) -> str:
    """Return Zensical's settings for the site of a language, in TOML."""
    english_folder, chinese_folder = ("./", "zh/") if language == "en" else ("../", "./")
    return f"""\
[project]
site_name = "wxauth"
docs_dir = "docs"
site_dir = "out"
use_directory_urls = false
copyright = "Apache-2.0"
extra_css = ["site/site.css"]
extra_javascript = ["site/site.js"]
nav = ["{_FRONT_PAGE}", "guides.md", {", ".join(_navigation(language))}]

[project.theme]
language = "{language}"
font = false
logo = "logo.svg"
favicon = "logo.svg"
features = ["navigation.sections", "navigation.top", "content.code.copy", "search.highlight"]

{"".join(_palettes(language))}
[[project.extra.alternate]]
name = "English"
link = "{english_folder}index.html"
lang = "en"

[[project.extra.alternate]]
name = "中文"
link = "{chinese_folder}index.html"
lang = "zh"

[project.markdown_extensions.tables]
[project.markdown_extensions.attr_list]
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.superfences]
[project.markdown_extensions.toc]
permalink = true
slugify = {{object = "pymdownx.slugs.slugify", kwds = {{case = "lower"}}}}
"""


def _navigation(language: str) -> Iterator[str]:
    """Yield each section of the list of guides, with its title and its pages, in TOML."""
    listing = LANGUAGES[language] / "README.md"
    sections: dict[str, list[str]] = {}
    names: list[str] = []
    for match in _HEADING_OR_ROW.finditer(listing.read_text("utf-8")):
        if match["heading"]:
            names = sections.setdefault(match["heading"], [])
            continue
        for target in re.findall(r"\]\(([^)#]+\.md)\)", match["links"]):
            file = (listing.parent / target).resolve()
            if file.is_relative_to(DOCS):
                names.append(_name(file))
    for title, names in sections.items():
        pages = ", ".join(_quoted(name) for name in names)
        yield f"{{{_quoted(title)} = [{pages}]}}"


def _palettes(language: str) -> Iterator[str]:
    """Yield the colour schemes in TOML: the system's scheme first, then the schemes that the button selects."""
    schemes = (("", "", "sun-moon"), (": light", "default", "sun"), (": dark", "slate", "moon"))
    for label, (preference, scheme, icon) in zip(_COLOUR_BUTTON[language], schemes, strict=True):
        yield f"""\
[[project.theme.palette]]
media = "(prefers-color-scheme{preference})"
{f'scheme = "{scheme}"' if scheme else ""}
primary = "green"
toggle.icon = "lucide/{icon}"
toggle.name = "{label}"

"""


def _quoted(text: str) -> str:
    """Return a text as a TOML string. For these texts, it has the same form as in JSON."""
    return json.dumps(text, ensure_ascii=False)


def build(folder: Path, *, source: str | None = None) -> None:
    """Build the site into a folder, which is replaced. `source` is as in `page`.

    Raises: CalledProcessError, if Zensical fails, for example because of a broken link.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory() as temporary:
        for language in LANGUAGES:
            site = Path(temporary) / language
            site.mkdir()
            write_source(language, site, source=source)
            subprocess.run([ZENSICAL, "build", "--strict"], cwd=site, check=True)  # noqa: S603 - our own program
            shutil.copytree(site / "out", folder / ("" if language == "en" else language), dirs_exist_ok=True)
    _translate_search(folder / "zh")
    contact = os.environ.get("SECURITY_CONTACT")
    if contact:
        _write_security_txt(folder, contact)


def _translate_search(folder: Path) -> None:
    """Replace the English texts of the search in the theme's script, in the folder of the Chinese site."""
    [script] = folder.glob("assets/javascripts/bundle.*.js")
    text = script.read_text("utf-8")
    for english, chinese in _SEARCH_IN_CHINESE.items():
        assert english in text, f"the theme no longer contains {english}"
        text = text.replace(english, chinese)
    script.write_text(text, "utf-8")


def _write_security_txt(folder: Path, contact: str) -> None:
    """Write `/.well-known/security.txt` (RFC 9116), which must expire within a year."""
    expires = datetime.now(UTC) + timedelta(days=360)
    file = folder / ".well-known/security.txt"
    file.parent.mkdir()
    file.write_text(f"Contact: {contact}\nExpires: {expires:%Y-%m-%dT%H:%M:%SZ}\n", "utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else BUILT, source=os.environ.get("SITE_SOURCE"))
