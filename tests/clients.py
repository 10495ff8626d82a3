"""Clients for tests: services and sites, as an administrator adds them."""

from datetime import datetime
from typing import Any

from wxauth.server.clients import clients
from wxauth.server.clients.clients import Credentials
from wxauth.server.core.database import Database


async def add_client(database: Database, name: str, *, now: datetime, **options: Any) -> Credentials:
    """A client with these options, and a secret: `await add_client(database, "ledger", scopes=["events"], now=now)`."""
    credentials = await clients.add_client(database, clients.asked_for(name, options), now=now)
    assert credentials is not None
    return credentials
