"""The results, as a table for readers and as JSON for programs."""

import os
import platform
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from ipaddress import ip_address
from statistics import median
from timeit import repeat
from typing import Any, Literal

from benchmarks import peers
from benchmarks.contenders import NAMES
from benchmarks.load import Kind
from benchmarks.rounds import Sample, Situation

_PACKAGES = ("fastapi", "uvicorn", "uvloop", "asyncpg", "aiohttp", "httpx", "sqlalchemy", "python-jose", "cryptography")


@dataclass(frozen=True)
class Target:
    """The maximum of our cost, as a multiple of another service's cost."""

    kind: Kind
    of: str
    at_most: float
    part: Literal["service", "PostgreSQL"] = "service"
    """The process whose CPU time is compared."""


TARGETS = (
    Target("login", "go_whole", 2.2),
    Target("login", "go_whole", 1.4, "PostgreSQL"),
    Target("login", "go", 3.0),
    Target("login", "express", 1.15),
    Target("login", "floor", 1.4),
    Target("login", "tutorial", 0.1),
    Target("guarded", "go_whole", 1.2),
    Target("guarded", "go", 1.5),
    Target("guarded", "floor", 1.3),
    Target("refresh", "without_wechat", 1.0),
)
_LABELS = {
    "go_whole": "Go, same work",
    "go_tables": "Go, same tables",
    "go": "bare Go",
    "without_wechat": "login without WeChat",
}


@dataclass(frozen=True)
class Row:
    """One service in one situation, with medians over the rounds."""

    service: str
    situation: Situation
    cpu_us: float
    user_us: float
    system_us: float
    postgres_us: float
    memory_mb: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    ratios: dict[str, float]
    """The ratios to the other services.

    Each is the median of each round's ratio, so that a slow minute affects both sides.
    """
    postgres_ratios: dict[str, float]
    """The ratios of PostgreSQL's CPU time."""


@dataclass(frozen=True)
class Verdict:
    """The result of comparing a target in one situation."""

    target: Target
    situation: Situation
    ratio: float

    @property
    def met(self) -> bool:
        return self.ratio <= self.target.at_most


def rows_of(samples: Sequence[Sample]) -> list[Row]:
    """Return a row for each measured situation and service."""
    rows = []
    for situation in dict.fromkeys(sample.situation for sample in samples):
        of_all = {name: [s for s in samples if s.situation == situation and s.service == name] for name in NAMES}
        for name, own in of_all.items():
            if not own:
                continue
            others = {other: theirs for other, theirs in of_all.items() if theirs and other not in ("wxauth", name)}
            rows.append(
                Row(
                    service=name,
                    situation=situation,
                    cpu_us=median(s.cpu_us for s in own),
                    user_us=median(s.user_us for s in own),
                    system_us=median(s.system_us for s in own),
                    postgres_us=median(s.postgres_us for s in own),
                    memory_mb=median(s.memory_mb for s in own),
                    requests_per_second=median(s.result.finished / s.result.seconds for s in own),
                    p50_ms=median(s.result.p50_ms for s in own),
                    p99_ms=median(s.result.p99_ms for s in own),
                    ratios={
                        other: median(a.cpu_us / b.cpu_us for a, b in zip(own, theirs, strict=True))
                        for other, theirs in others.items()
                    },
                    postgres_ratios={
                        other: median(a.postgres_us / b.postgres_us for a, b in zip(own, theirs, strict=True))
                        for other, theirs in others.items()
                    },
                )
            )
    return rows


def verdicts_of(rows: Iterable[Row]) -> list[Verdict]:
    """Return the result for each target in each situation that it covers."""
    return [
        Verdict(target, row.situation, (row.ratios if target.part == "service" else row.postgres_ratios)[target.of])
        for row in rows
        for target in TARGETS
        if row.service == "wxauth" and row.situation.kind == target.kind and target.of in row.ratios
    ]


def as_markdown(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> str:
    others = [name for name in NAMES if any(name in row.ratios for row in rows)]
    ratios_to = " | ".join(f"x {_label(other)}" for other in others)
    lines = [
        f"| situation | service | CPU µs | user + sys | {ratios_to} | Postgres µs | MB | per s | p50 ms | p99 ms |",
        f"|---|---|--:|--:|{'--:|' * len(others)}--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ratios = [f"{row.ratios[other]:.3f}" if other in row.ratios else "" for other in others]
        cells = [
            str(row.situation),
            _label(row.service),
            f"{row.cpu_us:.0f}",
            f"{row.user_us:.0f} + {row.system_us:.0f}",
        ]
        cells += [*ratios, f"{row.postgres_us:.0f}", f"{row.memory_mb:.0f}", f"{row.requests_per_second:.0f}"]
        cells += [f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for verdict in verdicts:
        word, target = "met" if verdict.met else "MISSED", verdict.target
        lines.append(
            f"- {word}: {verdict.situation}: {target.part}: {verdict.ratio:.3f} x {_label(target.of)}"
            f" (target {target.at_most})"
        )
    return "\n".join(lines)


def as_line() -> str:
    """Return the versions and options of everything involved."""
    build = python_build()
    options = " ".join(build["options"]) or "no options told"
    told = f"{build['compiler']}, {options}, ip_address() in {build['ip_address_ns']} ns"
    return "; ".join(
        [
            f"Python {platform.python_version()} ({told})",
            *(f"{name}: {made_of}" for name, made_of in peers.versions().items()),
        ]
    )


def as_document(samples: Sequence[Sample], rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "load_average": os.getloadavg()},
        "python": sys.version,
        "python_build": python_build(),
        "packages": {name: version(name) for name in _PACKAGES},
        "peers": peers.versions(),
        "rows": [asdict(row) for row in rows],
        "targets": [{**asdict(verdict), "met": verdict.met} for verdict in verdicts],
        "samples": [asdict(sample) for sample in samples],
    }


def python_build() -> dict[str, Any]:
    """Return how this Python was built, because another build of a version can need half as much CPU again.

    Debian's build is optimized, but its options do not show that. So the result includes the time of a piece of Python.
    """
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return {
        "options": [option for option in ("--enable-optimizations", "--with-lto") if option in options],
        "compiler": platform.python_compiler(),
        "ip_address_ns": round(min(repeat(lambda: ip_address("192.0.2.1"), number=1000, repeat=50)) * 1e6),
    }


def _label(service: str) -> str:
    return _LABELS.get(service, service)
