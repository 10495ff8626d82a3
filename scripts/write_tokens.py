"""Copy `src/wxauth/web/tokens.css` into the style sheets of our pages. With `--check`, only report other copies.

Each style sheet contains its copy, because a second file would delay the first paint of the login pages.
"""

import re
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TOKENS: Final = ROOT / "src/wxauth/web/tokens.css"
COPIES: Final = (ROOT / "src/wxauth/sites/pages/page/page.css", ROOT / "src/wxauth/console/page/base.css")
_COPY: Final = re.compile(
    r"(?<=/\* Written by scripts/docs from tokens\.css\. \*/\n).*?(?=/\* Until here\. \*/\n)", re.DOTALL
)


def written(sheet: Path) -> str:
    """Return a style sheet with the current tokens."""
    tokens = TOKENS.read_text("utf-8").partition("\n")[2]  # the first line is a comment for contributors
    text, copies = _COPY.subn(lambda _match: tokens, sheet.read_text("utf-8"))
    if copies != 1:
        sys.exit(f"{sheet.relative_to(ROOT)}: the comments around the copy of tokens.css are missing")
    return text


def main() -> None:
    """Write the copies, or report those that differ."""
    outdated = {sheet: text for sheet in COPIES if (text := written(sheet)) != sheet.read_text("utf-8")}
    if "--check" in sys.argv:
        names = ", ".join(str(sheet.relative_to(ROOT)) for sheet in outdated)
        sys.exit(f"{names}: the copy of tokens.css differs: run scripts/docs" if outdated else None)
    for sheet, text in outdated.items():
        sheet.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
