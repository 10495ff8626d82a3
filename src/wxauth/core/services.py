"""The parts of the service. A part is an object that exists once in each process, such as the key ring.

This module does not import the packages that declare the parts. `wxauth.service.build` names those that need arguments.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any, Final, Protocol, TypeVar, dataclass_transform

from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.settings.settings import Settings

Part = TypeVar("Part")

_PART_CLASSES: Final = set[type]()

log = get_logger()


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def part(kind: type[Part]) -> type[Part]:
    """Register a class, so that `Parts` can create it, and make it a dataclass whose objects equal only themselves.

    `Parts` reads the annotations, so the class's module must not import `annotations` from `__future__`.
    """
    part_class = dataclass(kw_only=True, eq=False, repr=False)(kind)
    _PART_CLASSES.add(part_class)
    return part_class


class Parts(dict[Any, Any]):
    """The parts of the service by their types.

    If a class is decorated with `part`, and each field is another part or has a default, the part of this class is
    created when it is first requested.
    """

    def make(self, kind: type[Part], **values: Any) -> Part:
        """Create a part, before the parts that need it.

        Otherwise, the first of those parts creates it with default arguments, and this method then fails.
        """
        if kind in self:
            raise ValueError(f"{kind.__name__} already exists")
        arguments = _arguments_of(kind)  # type: ignore[arg-type] # mypy: a class is not hashable
        # Any other argument has a default, or is missing. The constructor raises TypeError for a missing argument.
        parts = {
            name: self[type_]
            for name, type_ in arguments.items()
            if name not in values and (type_ in self or type_ in _PART_CLASSES)
        }
        created = self[kind] = kind(**parts, **values)
        return created

    def __missing__(self, kind: Any) -> Any:
        if kind not in _PART_CLASSES:
            raise KeyError(kind)
        return self.make(kind)


@cache
def _arguments_of(kind: type) -> dict[str, Any]:
    return {name: parameter.annotation for name, parameter in signature(kind).parameters.items()}


class Closable(Protocol):
    """A part that has work to finish or connections to close."""

    async def aclose(self) -> None:
        """Finish or cancel the work in progress, and close the connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All parts of the service. Most routes, and all use cases that they call, take single parts instead."""

    settings: Settings
    clock: Clock
    database: Database
    parts: Parts  # including those that other packages declare
    closing: Sequence[Collection[Closable]]  # one group after the other, the parts of a group at the same time

    def __getitem__(self, kind: type[Part]) -> Part:
        requested: Part = self.parts[kind]
        return requested

    async def aclose(self) -> None:
        """Close the parts in `closing`. The failure of a part is logged, and the others are still closed."""
        for group in self.closing:
            outcomes = await asyncio.gather(*(each.aclose() for each in group), return_exceptions=True)
            for each, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    log.error("not_closed", part=type(each).__name__, exc_info=outcome)
