"""The parts of the service (see `core/services.py`) as FastAPI's dependencies, which `provide` returns.

A test may replace any dependency: `app.dependency_overrides[provide(KeyRing)] = ...`.
"""

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends
from starlette.requests import HTTPConnection

from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.services import Services
from wxauth.settings.settings import Settings
from wxauth_guard.verifier import Verifier

Part = TypeVar("Part")


async def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the app. Only this function and `web.solver` read them from the app's state."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


@dataclass(frozen=True)
class Provided(Generic[Part]):
    """The dependency on a part. Those on the same part are equal, so that a test replaces all of them at once."""

    kind: type[Part]

    async def __call__(self, services: ServicesDep) -> Part:
        """Unless a test overrides dependencies, a direct route (`web.direct`) reads the part without this call."""
        return services[self.kind]


def provide(kind: type[Part]) -> Provided[Part]:
    """Return the dependency on the part of the service that has this type."""
    return Provided(kind)


SettingsDep = Annotated[Settings, Depends(provide(Settings))]
ClockDep = Annotated[Clock, Depends(provide(Clock))]
DatabaseDep = Annotated[Database, Depends(provide(Database))]
VerifierDep = Annotated[Verifier, Depends(provide(Verifier))]
