"""The parameter of routes with the parts of the service."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from wxauth.server.core.services import Services


async def services_of(connection: HTTPConnection) -> Services:
    """The services of the app that received the request."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
