"""Draw `docs/run/performance.svg`, a chart of the CPU time per request of wxauth and of other services.

The data comes from `docs/run/performance.json`, which the benchmarks write.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

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
"""The names of the services in the chart, in the order of their bars. The tutorial's bar would not fit."""


class _Group(NamedTuple):
    """A group of bars for one kind of request."""

    kind: str
    upstream_ms: int | None
    """The time, in milliseconds, after which WeChat responds; None for a request that needs no response of WeChat."""
    title: str


_GROUPS: Final = (_Group("login", 0, "a login"), _Group("guarded", None, "GET /v1/me"))
_CONNECTIONS: Final = 32
"""The number of simultaneous connections in the measurements that the chart shows."""

# All lengths are in pixels.
_NAME_WIDTH: Final = 120
_MAX_BAR_WIDTH: Final = 480
_FIGURES_WIDTH: Final = 90
"""The width of the figures to the right of the longest bar."""
_BAR_HEIGHT: Final = 16
_ROW_HEIGHT: Final = 22
_TITLE_HEIGHT: Final = 34
_STYLE: Final = """
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
    """Return the chart as SVG. Each bar shows a service's own CPU time, and then PostgreSQL's CPU time for it."""
    rows = json.loads(SAMPLES.read_text("utf-8"))["rows"]
    elements: list[str] = []
    height = 0
    for group in _GROUPS:
        rows_of_group = _rows_of(group, rows)
        height += _TITLE_HEIGHT
        elements.append(f'<text class="head" x="0" y="{height - 10}">{group.title}, µs of CPU</text>')
        pixels_per_us = _MAX_BAR_WIDTH / max(row["cpu_us"] + row["postgres_us"] for row in rows_of_group)
        for row in rows_of_group:
            elements.extend(_bar(row, y=height, pixels_per_us=pixels_per_us))
            height += _ROW_HEIGHT
    label = "CPU of a login and of GET /v1/me: wxauth, Go, Express and a floor, with PostgreSQL's share"
    size = f'viewBox="0 0 {_NAME_WIDTH + _MAX_BAR_WIDTH + _FIGURES_WIDTH} {height + 6}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">'
    return "\n".join((head, f"<style>{_STYLE}</style>", *elements, "</svg>\n"))


def _rows_of(group: _Group, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the measurements of a group, one for each measured service in `NAMES`, in this order."""
    situation = {"kind": group.kind, "connections": _CONNECTIONS, "upstream_ms": group.upstream_ms}
    by_service = {row["service"]: row for row in rows if row["situation"] == situation}
    return [by_service[name] for name in NAMES if name in by_service]


def _bar(row: Mapping[str, Any], *, y: int, pixels_per_us: float) -> Iterator[str]:
    """Yield the elements of a service's bar: the name, the service's CPU time, PostgreSQL's CPU time and the figures.

    `y` is the position of the bar's upper edge.
    """
    service_width, postgres_width = row["cpu_us"] * pixels_per_us, row["postgres_us"] * pixels_per_us
    css_class = "own" if row["service"] == "wxauth" else "other"
    figures = f"{row['cpu_us']:.0f} + {row['postgres_us']:.0f}"
    bar, end = _NAME_WIDTH, _NAME_WIDTH + service_width + postgres_width
    text_y = y + 13  # the baseline
    yield f'<text x="0" y="{text_y}">{NAMES[row["service"]]}</text>'
    yield f'<rect class="{css_class}" x="{bar}" y="{y}" width="{service_width:.0f}" height="{_BAR_HEIGHT}"/>'
    yield (
        f'<rect class="postgres" x="{bar + service_width:.0f}" y="{y}" width="{postgres_width:.0f}"'
        f' height="{_BAR_HEIGHT}"/>'
    )
    yield f'<text class="of" x="{end + 6:.0f}" y="{text_y}">{figures}</text>'


if __name__ == "__main__":
    CHART.write_text(chart(), encoding="utf-8")
