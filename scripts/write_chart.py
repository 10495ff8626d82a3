"""Write `docs/run/performance.svg` from `docs/run/performance.json`, with the CPU per request of wxauth and others."""

import json
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SAMPLES: Final = ROOT / "docs/run/performance.json"
CHART: Final = ROOT / "docs/run/performance.svg"
NAMES: Final = {
    "wxauth": "wxauth",
    "go_whole": "Go, same work",
    "go": "bare Go",
    "express": "Express",
    "floor": "floor",
}
KINDS: Final = (("login", 0, "a login"), ("guarded", None, "GET /v1/me"))
LEFT, WIDTH, STEP, HEAD = 120, 480, 22, 34
STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.of { fill: #59636e }
.head { font-weight: 600 }
.own { fill: #07a55a }
.other { fill: #8c959f }
.postgres { fill: #336791; opacity: .55 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .of { fill: #9198a1 }
  .own { fill: #2fcb7d }
  .postgres { fill: #79b8ff }
}
"""


def chart() -> str:
    """Return the bars, with each service's own CPU, then PostgreSQL's CPU for it. The tutorial's bar would not fit."""
    rows = json.loads(SAMPLES.read_text())["rows"]
    drawn, y = [], 0
    for kind, upstream, title in KINDS:
        of_kind = [
            row
            for name in NAMES
            for row in rows
            if row["service"] == name and row["situation"] == {"kind": kind, "connections": 32, "upstream_ms": upstream}
        ]
        scale = WIDTH / max(row["cpu_us"] + row["postgres_us"] for row in of_kind)
        y += HEAD
        drawn.append(f'<text class="head" x="0" y="{y - 10}">{title}, µs of CPU</text>')
        for row in of_kind:
            own, database = row["cpu_us"] * scale, row["postgres_us"] * scale
            shown = f"{row['cpu_us']:.0f} + {row['postgres_us']:.0f}"
            color = "own" if row["service"] == "wxauth" else "other"
            drawn += (
                f'<text x="0" y="{y + 13}">{NAMES[row["service"]]}</text>',
                f'<rect class="{color}" x="{LEFT}" y="{y}" width="{own:.0f}" height="16"/>',
                f'<rect class="postgres" x="{LEFT + own:.0f}" y="{y}" width="{database:.0f}" height="16"/>',
                f'<text class="of" x="{LEFT + own + database + 6:.0f}" y="{y + 13}">{shown}</text>',
            )
            y += STEP
    label = "CPU of a login and of GET /v1/me: wxauth, Go, Express and a floor, with PostgreSQL's share"
    size = f'viewBox="0 0 {LEFT + WIDTH + 90} {y + 6}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">'
    return "\n".join((head, f"<style>{STYLE}</style>", *drawn, "</svg>\n"))


if __name__ == "__main__":
    CHART.write_text(chart(), encoding="utf-8")
