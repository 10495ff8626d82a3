"""The parts of the service as FastAPI's dependencies.

Those of core have a dependency here, those of other rooms one made by `provide`. A test may replace any of them:
`app.dependency_overrides[database] = ...`, `app.dependency_overrides[provide(KeyRing)] = ...`.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated, Final, TypeVar

from fastapi import Depends
from starlette.requests import HTTPConnection

from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import OncePerDay, get_logger
from wxauth.server.core.services import Services, part
from wxauth.server.core.setting_types import Deprecation
from wxauth.server.core.settings import Settings
from wxauth.tokens.verifier import Verifier

log = get_logger()

Part = TypeVar("Part")


async def services_of(connection: HTTPConnection) -> Services:
    """The services of the app that received the request. Nothing else looks into the app's state."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


@cache
def provide(kind: type[Part]) -> Callable[[Services], Awaitable[Part]]:
    """The dependency on the part of this type: always the same function for the same type."""

    async def part(services: ServicesDep) -> Part:
        return services[kind]

    return part


async def settings(services: ServicesDep) -> Settings:
    """The settings."""
    return services.settings


async def clock(services: ServicesDep) -> Clock:
    """The clock."""
    return services.clock


async def database(services: ServicesDep) -> Database:
    """The database."""
    return services.database


async def verifier(services: ServicesDep) -> Verifier:
    """The verifier of access tokens."""
    return services.verifier


SettingsDep = Annotated[Settings, Depends(settings)]
ClockDep = Annotated[Clock, Depends(clock)]
DatabaseDep = Annotated[Database, Depends(database)]
VerifierDep = Annotated[Verifier, Depends(verifier)]


@part
class Deprecations:
    """Tells the operator what is used and goes."""

    clock: Clock

    def __post_init__(self) -> None:
        self._told = OncePerDay()

    def tell(self, used: Deprecation) -> None:
        """Log that it was used, once a UTC day in this process."""
        if self._told.is_due(used.name, self.clock().date()):
            log.warning("deprecated", used=used.name, what_to_do=f"use {used.instead}", until=used.until.isoformat())


DEPRECATED_KEY: Final = "wxauth.deprecated"
"""The key in the ASGI scope of the headers that tell about what a request used."""


def note_deprecated(connection: HTTPConnection, services: Services, used: Deprecation) -> None:
    """Tell the operator, and by headers of the answer the client, that this request uses something that goes."""
    services[Deprecations].tell(used)
    connection.scope.setdefault(DEPRECATED_KEY, []).extend(used.headers)


def deprecated(it: Deprecation) -> Callable[[HTTPConnection, Services], Awaitable[None]]:
    """The dependency of an operation that goes. Declare `deprecated=True` beside it, for the documentation."""

    async def note(connection: HTTPConnection, services: ServicesDep) -> None:
        note_deprecated(connection, services, it)

    return note
