"""Measure what can be counted of `docs/contribute/style.md` in the English guides, per 1,000 words."""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_FOLDERS: Final = (".", "docs/**", "deploy", "desk", "examples/*", "clients/*", "skills/*")
MEASURES: Final = {
    "colons": (r":(?=\s|$)", "at most 20"),
    "semicolons": (r";(?=\s|$)", "at most 3"),
    "you": (r"\byou(?:r|rs|rself)?\b", "at least 18"),
    "reasons": (r"\b(?:because|since|so that|therefore|otherwise|instead|in order to)\b", "at least 5"),
    "examples": (r"\b(?:for example|for instance|such as)\b", "at least 3"),
    "this, these": (r"\bth(?:is|ese)\b", "at least 8"),
    "can, must": (r"\b(?:can|cannot|could|might|must|mustn|need|needs|should)\b", "at least 13"),
}
"""The measures, and how often each occurs in documentation that reads well."""
_LEFT_OUT: Final = (
    (r"(?s)\A---\n.*?\n---\n", ""),
    (r"(?ms)^( *)```.*?^\1```$", ""),
    (r"(?s)<!--.*?-->|<[^<>]+>", ""),
    (r"(?m)^ *(?:\||#|!\[|\[[^]]+\]: ).*$|^ {4,}(?![-*]|\d+\.).*$", ""),
    (r"!?\[([^]]*)\]\([^)]*\)", r"\1"),
    (r"`[^`]*`", "CODE"),
    (r"https?://\S+", "URL"),
)
"""The code, tables, headings, pictures and addresses that are left out, with their replacements."""


def running_text(markdown: str) -> str:
    """Return the sentences of a page, without the parts that are not sentences."""
    for pattern, instead in _LEFT_OUT:
        markdown = re.sub(pattern, instead, markdown)
    return markdown


def measured(texts: Iterable[str]) -> tuple[int, dict[str, float]]:
    """Return the number of words in these texts, and how often each measure occurs in 1,000 of them."""
    text = "\n\n".join(texts)
    words = len(re.findall(r"[A-Za-z][A-Za-z'’-]*", text))
    found = {name: len(re.findall(pattern, text, re.IGNORECASE)) for name, (pattern, _) in MEASURES.items()}
    return words, {name: 1000 * number / max(words, 1) for name, number in found.items()}


def guides() -> list[Path]:
    """Return the pages in English."""
    pages = (page for folder in _FOLDERS for page in ROOT.glob(f"{folder}/*.md"))
    return sorted(page for page in pages if "zh" not in page.parts and not page.name.endswith(".zh-CN.md"))


def main() -> None:
    """Print a line for all pages together, or with --each a line for each page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--each", action="store_true", help="a line for each page")
    chosen = parser.parse_args()
    texts = {str(page): running_text(page.read_text("utf-8")) for page in chosen.pages or guides()}
    rows = [(name.removeprefix(f"{ROOT}/"), [text]) for name, text in texts.items()] if chosen.each else []
    lines = [
        f"{'per 1,000 words':36}" + "".join(f"{name:>13}" for name in (*MEASURES, "words")),
        f"{'wanted':36}" + "".join(f"{wanted:>13}" for _, wanted in MEASURES.values()),
    ]
    for name, those in (*rows, ("all", list(texts.values()))):
        words, found = measured(those)
        lines.append(f"{name[-35:]:36}" + "".join(f"{number:>13.1f}" for number in found.values()) + f"{words:>13}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
