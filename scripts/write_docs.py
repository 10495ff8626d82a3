"""Write `docs/llms.txt`, a list of the guides, and `build/llms-full*.txt`, their text, for coding assistants."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
INDEX: Final = ROOT / "docs" / "llms.txt"
WHOLE: Final = {
    ROOT / "build" / "llms-full.txt": ROOT / "docs" / "README.md",
    ROOT / "build" / "llms-full.zh-CN.txt": ROOT / "docs" / "zh" / "README.md",
}
"""The combined texts, each with the list of the guides that it contains."""

_ROW: Final = re.compile(r"^\| [^|]+? \| (?P<links>\[.*\)) \|$", re.MULTILINE)
_LINK: Final = re.compile(r"\[(?P<title>[^]]+)\]\((?P<file>[^)#]+\.md)(?:#[^)]*)?\)")
_HEAD: Final = """\
# wxauth

> A login service for WeChat mini-programs: a wx.login code becomes a user in PostgreSQL, a session, and a signed
> access token that other services verify off-line. It is also an OpenID provider: people log in to websites by a scan.

Errors are application/problem+json with a stable `code`. The OpenAPI document of a running service is at /openapi.json.
Written by scripts/docs. In one page, for work on a mini-program or a back end: [SKILL.md](../skills/wxauth/SKILL.md).

## Guides

"""


def index() -> str:
    """Return the list of the guides, in the form of llmstxt.org."""
    listing = ROOT / "docs/README.md"
    return _HEAD + "".join(
        f"- [{title}]({file}): {first_sentence(listing.parent / file)}\n" for title, file in _guides(listing)
    )


def whole(listing: Path) -> str:
    """Return the text of all guides that a page lists, one after the other."""
    return "\n\n".join(
        f"<!-- {os.path.relpath(listing.parent / file, ROOT)} -->\n{(listing.parent / file).read_text('utf-8').strip()}"
        for _, file in _guides(listing)
    )


def first_sentence(page: Path) -> str:
    """Return the first sentence of a page's first paragraph, without links, as its description."""
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text("utf-8"), flags=re.DOTALL)
    paragraphs = (" ".join(each.split()) for each in text.split("\n\n") if each.strip())
    prose = next(each for each in paragraphs if each[0].isalpha() and " " in each and ". " in f"{each} ")
    return re.split(r"(?<=[.?!]) ", re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", prose))[0]


def _guides(listing: Path) -> Iterator[tuple[str, str]]:
    """Yield the title and the file of each guide, each once."""
    seen = set()
    for row in _ROW.finditer(listing.read_text("utf-8")):
        for link in _LINK.finditer(row["links"]):
            if link["file"] not in seen:
                seen.add(link["file"])
                yield link["title"], link["file"]


def main() -> None:
    """Write the files."""
    INDEX.write_text(index(), "utf-8")
    for file, listing in WHOLE.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(whole(listing) + "\n", "utf-8")


if __name__ == "__main__":
    main()
