"""Measure habits that `docs/contribute/style.md` describes in the English guides, per 1,000 words of running text."""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
_FOLDERS: Final = (".", "docs/**", "deploy", "desk", "examples/*", "clients/*", "skills/*")
"""The folders that contain guides, as patterns for `Path.glob`."""


class Measure(NamedTuple):
    """A habit that can be counted."""

    pattern: str
    """The pattern of an occurrence, without regard to case."""
    target: str
    """The number of occurrences per 1,000 words in documentation that reads well."""


MEASURES: Final = {
    "colons": Measure(r":(?=\s|$)", "at most 20"),
    "semicolons": Measure(r";(?=\s|$)", "at most 3"),
    "you": Measure(r"\byou(?:r|rs|rself)?\b", "at least 18"),
    "reasons": Measure(r"\b(?:because|since|so that|therefore|otherwise|instead|in order to)\b", "at least 5"),
    "examples": Measure(r"\b(?:for example|for instance|such as)\b", "at least 3"),
    "this, these": Measure(r"\bth(?:is|ese)\b", "at least 8"),
    "can, must": Measure(r"\b(?:can|cannot|could|might|must|mustn|need|needs|should)\b", "at least 13"),
}
_REPLACEMENTS: Final = (
    (r"(?s)\A---\n.*?\n---\n", ""),  # the metadata at the top of a page
    (r"(?ms)^( *)```.*?^\1```$", ""),  # code blocks
    (r"(?s)<!--.*?-->|<[^<>]+>", ""),  # comments and tags
    (r"(?m)^ *(?:\||#|!\[|\[[^]]+\]: ).*$", ""),  # tables, headings, pictures, and the definitions of links
    (r"(?m)^ {4,}(?![-*]|\d+\.).*$", ""),  # indented code, but no items of nested lists
    (r"!?\[([^]]*)\]\([^)]*\)", r"\1"),  # of a link, only its text remains
    (r"`[^`]*`", "CODE"),
    (r"https?://\S+", "URL"),
)
"""The patterns of the parts of a page that are not running text, with their replacements, in the order of their use."""
_NAME_WIDTH: Final = 36
_COLUMN_WIDTH: Final = 13


def running_text(markdown: str) -> str:
    """Return the sentences of a page in Markdown, without the parts that are not sentences."""
    for pattern, replacement in _REPLACEMENTS:
        markdown = re.sub(pattern, replacement, markdown)
    return markdown


def measured(texts: Iterable[str]) -> tuple[int, dict[str, float]]:
    """Return the number of words in these texts, and the occurrences of each measure per 1,000 words."""
    text = "\n\n".join(texts)
    words = len(re.findall(r"[A-Za-z][A-Za-z'’-]*", text))
    frequencies = {}
    for name, measure in MEASURES.items():
        occurrences = len(re.findall(measure.pattern, text, re.IGNORECASE))
        frequencies[name] = 1000 * occurrences / max(words, 1)
    return words, frequencies


def guides() -> list[Path]:
    """Return the pages in English, sorted."""
    pages = (page for folder in _FOLDERS for page in ROOT.glob(f"{folder}/*.md"))
    return sorted(page for page in pages if "zh" not in page.parts and not page.name.endswith(".zh-CN.md"))


def main() -> None:
    """Print a table with a row for all pages together and, with `--each`, a row for each page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--each", action="store_true", help="a line for each page")
    arguments = parser.parse_args()
    texts = {str(page): running_text(page.read_text("utf-8")) for page in arguments.pages or guides()}
    lines = [
        _line("per 1,000 words", (*MEASURES, "words")),
        _line("wanted", [measure.target for measure in MEASURES.values()]),
    ]
    if arguments.each:
        lines += [_line_of_measures(path.removeprefix(f"{ROOT}/"), [text]) for path, text in texts.items()]
    lines.append(_line_of_measures("all", texts.values()))
    sys.stdout.write("\n".join(lines) + "\n")


def _line_of_measures(name: str, texts: Iterable[str]) -> str:
    """Return the line of the table for these texts. Of a long name, only the end is shown."""
    words, frequencies = measured(texts)
    cells = [*(f"{frequency:.1f}" for frequency in frequencies.values()), str(words)]
    return _line(name[-(_NAME_WIDTH - 1) :], cells)


def _line(name: str, cells: Iterable[str]) -> str:
    """Return a line of the table, with its cells aligned to the right."""
    return f"{name:{_NAME_WIDTH}}" + "".join(f"{cell:>{_COLUMN_WIDTH}}" for cell in cells)


if __name__ == "__main__":
    main()
