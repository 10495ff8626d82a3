"""The assembled parts: those of core by name, and those of every other room by type.

`wxauth.server.service.build` assembles them. So this file need not import the rooms above core.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from wxauth.server.core.background import Background, Promises
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.parts import Parts
from wxauth.server.core.sealing import Sealer
from wxauth.server.core.settings import Settings
from wxauth.tokens.verifier import Verifier

Part = TypeVar("Part")


class Closable(Protocol):
    """A part with something to finish or to close."""

    async def aclose(self) -> None:
        """Finish the work in progress, and close the connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All parts: `services.database`, `services[KeyRing]`. Routes and use cases take single ones."""

    settings: Settings
    clock: Clock
    database: Database
    sealer: Sealer
    background: Background
    promises: Promises
    verifier: Verifier
    parts: Parts
    """These and the parts of the rooms above core, by their types."""
    closing: Sequence[Collection[Closable]]
    """The parts to close: the groups one after the other, the parts of a group at the same time."""

    def __getitem__(self, part: type[Part]) -> Part:
        """The part of this type. Raises: KeyError."""
        found: Part = self.parts[part]
        return found

    async def aclose(self) -> None:
        """Close every connection."""
        for group in self.closing:
            await asyncio.gather(*(part.aclose() for part in group))
