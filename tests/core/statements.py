"""Lists every statement of the service, and reads its plan."""

import json
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

import wxauth
from tests.world import Rows
from wxauth.core.statements import Batched, Statement

BESIDE_QUERIES = ("wxauth.core.database", "wxauth.core.trail", "wxauth.core.revisions")


def statements() -> Iterator[tuple[str, Statement[Any]]]:
    for module in pkgutil.walk_packages(wxauth.__path__, "wxauth."):
        package, _, name = module.name.rpartition(".")
        if name == "queries" or name.endswith("_queries") or module.name in BESIDE_QUERIES:
            for constant, value in vars(import_module(module.name)).items():
                if isinstance(value, Statement):
                    yield f"{package.rpartition('.')[2]}.{name}.{constant}", value
                if isinstance(value, Batched):
                    yield f"{package.rpartition('.')[2]}.{name}.{constant}.many", value.many
                elif isinstance(value, Mapping):
                    for key, part in value.items():
                        if isinstance(part, Statement):
                            yield f"{package.rpartition('.')[2]}.{name}.{constant}.{key}", part
                elif is_dataclass(value) and not isinstance(value, type):
                    for part in fields(value):
                        if isinstance(statement := getattr(value, part.name), Statement):
                            yield f"{package.rpartition('.')[2]}.{name}.{constant}.{part.name}", statement


STATEMENTS = dict(statements())


async def generic_plans(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return the plan of each statement, which PostgreSQL uses for any values."""
    found = {}
    await rows.execute("SET plan_cache_mode = force_generic_plan; SET jit = off")
    for name, statement in STATEMENTS.items():
        await rows.execute(f"PREPARE one AS {statement.text}")
        nulls = f"({', '.join('NULL' for _ in statement.names)})" if statement.names else ""
        (plan,) = json.loads(await rows.fetchval(f"EXPLAIN (FORMAT JSON, COSTS OFF) EXECUTE one{nulls}"))
        await rows.execute("DEALLOCATE one")
        found[name] = plan["Plan"]
    return found
