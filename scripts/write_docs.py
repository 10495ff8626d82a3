"""Write `docs/llms.txt`, which lists the guides for coding assistants, and `build/llms-full*.txt` with their texts."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
INDEX: Final = ROOT / "docs" / "llms.txt"
WHOLE: Final = {
    ROOT / "build" / "llms-full.txt": ROOT / "docs" / "README.md",
    ROOT / "build" / "llms-full.zh-CN.txt": ROOT / "docs" / "zh" / "README.md",
}
"""The files with the texts of all guides, each with the page that lists these guides."""

_ROW: Final = re.compile(r"^\| [^|]+? \| (?P<links>\[.*\)) \|$", re.MULTILINE)
"""The pattern of a table row whose second cell contains links to guides."""
_LINK: Final = re.compile(r"\[(?P<title>[^]]+)\]\((?P<file>[^)#]+\.md)(?:#[^)]*)?\)")
_HEAD: Final = """\
# wxauth

> A login service for WeChat mini-programs: a wx.login code becomes a user in PostgreSQL, a session, and a signed
> access token that other services verify off-line. It is also an OpenID provider: people log in to websites by a scan.

Errors are application/problem+json with a stable `code`. The OpenAPI document of a running service is at /openapi.json.
Written by scripts/docs. In one page, for work on a mini-program or a back end: [SKILL.md](../skills/wxauth/SKILL.md).

## Guides

"""


class _Guide(NamedTuple):
    """A guide, as a page lists it."""

    title: str
    link: str
    """The path of the guide, relative to the page that lists it."""
    path: Path


def index() -> str:
    """Return the list of the guides, in the form that llmstxt.org specifies."""
    guides = _guides_listed_in(ROOT / "docs/README.md")
    return _HEAD + "".join(f"- [{guide.title}]({guide.link}): {_first_sentence(guide.path)}\n" for guide in guides)


def whole(listing: Path) -> str:
    """Return the texts of all guides that a page lists, each after a comment with its path."""
    texts = []
    for guide in _guides_listed_in(listing):
        text = guide.path.read_text("utf-8").strip()
        texts.append(f"<!-- {os.path.relpath(guide.path, ROOT)} -->\n{text}")
    return "\n\n".join(texts)


def _guides_listed_in(listing: Path) -> Iterator[_Guide]:
    """Yield the guides to which the tables of a page link, each guide only once."""
    links = set()
    for row in _ROW.finditer(listing.read_text("utf-8")):
        for match in _LINK.finditer(row["links"]):
            link = match["file"]
            if link not in links:
                links.add(link)
                yield _Guide(match["title"], link, listing.parent / link)


def _first_sentence(page: Path) -> str:
    """Return the first sentence of a page's first paragraph, with the texts of its links instead of the links."""
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text("utf-8"), flags=re.DOTALL)  # without the metadata
    paragraphs = (" ".join(block.split()) for block in text.split("\n\n") if block.strip())
    first = next(paragraph for paragraph in paragraphs if _is_prose(paragraph))
    without_links = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", first)
    return re.split(r"(?<=[.?!]) ", without_links)[0]


def _is_prose(block: str) -> bool:
    """Return whether a block of Markdown, in one line, is a paragraph with a sentence, for example not a heading."""
    return block[0].isalpha() and " " in block and ". " in f"{block} "


def main() -> None:
    """Write the files."""
    INDEX.write_text(index(), "utf-8")
    for file, listing in WHOLE.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(whole(listing) + "\n", "utf-8")


if __name__ == "__main__":
    main()
