"""Write the tables of `compare.md`, in both languages, from `docs/start/compare.json`."""

import json
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
FACTS: Final = ROOT / "docs/start/compare.json"
PAGES: Final = {"en": ROOT / "docs/start/compare.md", "zh": ROOT / "docs/zh/start/compare.md"}
OTHERS: Final = ("casdoor", "logto", "uni-id", "authing", "pocket-id", "tutorial", "wx.cloud")
HEADS: Final = {
    "en": ("", "wxauth", "Casdoor", "Logto", "uni-id", "Authing", "Pocket ID", "a tutorial", "`wx.cloud`"),
    "zh": ("", "wxauth", "Casdoor", "Logto", "uni-id", "Authing", "Pocket ID", "教程代码", "`wx.cloud`"),
}


def written(language: str) -> str:
    """Return the page with its current tables."""
    facts, column = json.loads(FACTS.read_text(encoding="utf-8")), tuple(PAGES).index(language)
    numbers = {name: number for number, name in enumerate(facts["sources"], 1)}

    def cell(said: dict[str, Any] | None) -> str:
        if said is None:
            return "–"
        return f"{said['says'][column]} [{numbers[said['source']]}]"

    lines = [HEADS[language], ("---",) * len(HEADS[language])]
    for row in facts["rows"]:
        own = f"{row['wxauth'][column]} (`{row['test']}`)" if row["test"] else row["wxauth"][column]
        lines.append((row["row"][column], own, *(cell(row[name]) for name in OTHERS)))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    listed = "".join(f"- [{numbers[name]}] {url}, {month}\n" for name, (url, month) in facts["sources"].items())
    links = "".join(f"[{numbers[name]}]: {url}\n" for name, (url, _) in facts["sources"].items())
    text = PAGES[language].read_text(encoding="utf-8")
    for mark, made in (("table", table), ("sources", f"{listed}\n{links}")):
        before, found, rest = text.partition(f"<!-- {mark} -->\n")
        text = f"{before}{found}\n{made}\n{rest[rest.index('<!-- end -->') :]}"
    return text


if __name__ == "__main__":
    for each, page in PAGES.items():
        page.write_text(written(each), encoding="utf-8")
