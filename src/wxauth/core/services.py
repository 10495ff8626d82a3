"""The parts of the service. A part is an object that exists once in each process, such as the key ring.

The types of the fields of a part's class name the parts that it needs. `wxauth.service.build` creates the parts, so
that this module does not import the packages above core.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any, Final, Protocol, TypeVar, dataclass_transform

from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.settings.settings import Settings

Part = TypeVar("Part")

_KINDS: Final = set[type]()


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def part(kind: type[Part]) -> type[Part]:
    """Make a class the class of a part. Its fields become the keyword arguments of its constructor.

    The objects of the class are compared by identity.
    """
    made = dataclass(kw_only=True, eq=False, repr=False)(kind)
    _KINDS.add(made)
    return made


class Parts(dict[Any, Any]):
    """The parts of the service by their types.

    A part that needs only other parts is created when it is first requested.
    """

    def make(self, kind: type[Part], **given: Any) -> Part:
        """Create a part from the given arguments and from other parts, by their types.

        Raises: TypeError, if an argument is missing.
        """
        arguments = _arguments_of(kind)  # type: ignore[arg-type] # mypy: a class is not hashable
        wanted = ((name, type_) for name, type_ in arguments.items() if name not in given)
        found = {name: self[type_] for name, type_ in wanted if type_ in self or type_ in _KINDS}
        made = self[kind] = kind(**found, **given)
        return made

    def __missing__(self, kind: Any) -> Any:
        if kind not in _KINDS:
            raise KeyError(kind)
        return self.make(kind)


@cache
def _arguments_of(kind: type) -> dict[str, Any]:
    return {name: it.annotation for name, it in signature(kind).parameters.items()}


class Closable(Protocol):
    """A part that has work to finish or connections to close."""

    async def aclose(self) -> None:
        """Finish the work in progress, and close the connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All parts of the service. Code gets a part as `services.database` or `services[KeyRing]`.

    Routes and use cases take single parts instead of this object.
    """

    settings: Settings
    clock: Clock
    database: Database
    parts: Parts
    """All parts by their types, including those of the packages above core."""
    closing: Sequence[Collection[Closable]]
    """The parts to close. `aclose` closes one group after the other, and the parts of a group at the same time."""

    def __getitem__(self, part: type[Part]) -> Part:
        """Return the part of this type. Raises: KeyError."""
        found: Part = self.parts[part]
        return found

    async def aclose(self) -> None:
        """Close every part, and thereby every connection."""
        for group in self.closing:
            await asyncio.gather(*(part.aclose() for part in group))
