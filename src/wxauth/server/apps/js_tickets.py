"""The tickets of WeChat's JS-SDK, and the signatures that they make for pages.

WeChat gives the same ticket until near its end, and counts who fetches it. So one process fetches for all replicas, and
each keeps a copy in memory.
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha1
from typing import Final

from wxauth.errors import WeChatError, WeChatTimeout
from wxauth.server.apps.js_ticket_rows import FIND_TICKET, LEASE_TICKET, RELEASE_TICKET, STORE_TICKET, SealedTicket
from wxauth.server.core.background import begun, once
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import CannotOpen, Sealer, js_ticket_context
from wxauth.server.core.services import part
from wxauth.server.core.settings import App, Settings
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.wechat_tokens import (
    FAILURE_PAUSE,
    LONGEST_LIFE_SECONDS,
    RENEWAL_LEAD,
    RENEWAL_PAUSE,
    RENEWAL_SPREAD,
    again,
)

_LONGEST_LIFE: Final = timedelta(seconds=LONGEST_LIFE_SECONDS)
_LOOK_AGAIN_SECONDS: Final = 0.1
"""How often a process looks for the ticket that another one fetches."""
_NONCE_BYTES: Final = 12
"""Of 16 characters."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class _Ticket:
    value: str = field(repr=False)
    ends_at: datetime
    renews_at: datetime

    def is_good(self, now: datetime) -> bool:
        """Whether it is in force. One that ends later than it can is of a wrong clock."""
        return now < self.ends_at <= now + _LONGEST_LIFE


@dataclass(frozen=True, slots=True)
class JsSignature:
    """What `wx.config` takes besides the app's id."""

    timestamp: int
    nonce: str
    signature: str


@part
class JsTickets:
    """The tickets of all apps. `jitter` returns random numbers from 0 to 1."""

    settings: Settings
    database: Database
    clock: Clock
    sealer: Sealer
    wechat_api: WeChatApi
    jitter: Callable[[], float] = random.random
    _kept: dict[str, _Ticket] = field(init=False, default_factory=dict)
    _under_way: dict[str, asyncio.Task[_Ticket]] = field(init=False, default_factory=dict)
    _failed: dict[str, tuple[WeChatError, datetime]] = field(init=False, default_factory=dict)
    """The last failure of each app, and until when WeChat is not asked again."""

    async def sign(self, app: App, url: str) -> JsSignature:
        """The signature of a page. It waits for WeChat only if there is no ticket in force. Raises: WeChatError."""
        now, nonce, ticket = self.clock(), secrets.token_urlsafe(_NONCE_BYTES), self._kept.get(app.app_id)
        if ticket is None or not ticket.is_good(now):
            ticket = self._opened(app.app_id, await self.database.row(FIND_TICKET, app_id=app.app_id), now)
        if ticket is None:
            ticket = await once(self._under_way, app.app_id, lambda: self._renew(app))
        else:
            self._kept[app.app_id] = ticket
            if now >= ticket.renews_at and self._failure_of(app, now) is None:
                _ = begun(self._under_way, app.app_id, lambda: self._renew(app))  # for later: this caller does not wait
        timestamp = int(now.timestamp())
        signed = f"jsapi_ticket={ticket.value}&noncestr={nonce}&timestamp={timestamp}&url={url.partition('#')[0]}"
        return JsSignature(timestamp, nonce, sha1(signed.encode(), usedforsecurity=False).hexdigest())

    async def aclose(self) -> None:
        """Cancel the requests in progress."""
        under_way = list(self._under_way.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _failure_of(self, app: App, now: datetime) -> WeChatError | None:
        """The failure of a moment ago, after which WeChat is not asked yet."""
        failure, until = self._failed.get(app.app_id, (None, now))
        return failure and (again(failure, until - now) if now < until <= now + FAILURE_PAUSE else None)

    async def _renew(self, app: App) -> _Ticket:
        """The ticket as stored, or fetched anew. Raises: WeChatError."""
        patience = timedelta(seconds=2 * self.settings.wechat_timeout)  # for a token, and for the ticket
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience.total_seconds()
        while True:
            now, found = self.clock(), await self.database.row(FIND_TICKET, app_id=app.app_id)
            stored = self._opened(app.app_id, found, now)
            if stored is not None and now < stored.renews_at:
                self._kept[app.app_id] = stored
                return stored
            if failure := self._failure_of(app, now):
                raise failure
            unusable = found.ticket if found is not None and stored is None else None
            lease = {"app_id": app.app_id, "unusable": unusable, "until": now + patience, "now": now}
            if await self.database.value(LEASE_TICKET, **lease) is not None:
                return await self._fetch(app, now)
            if stored is not None:
                return stored
            if loop.time() > deadline:
                raise WeChatTimeout("no other process has fetched the ticket in time")
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def _opened(self, app_id: str, found: SealedTicket | None, now: datetime) -> _Ticket | None:
        """The stored ticket, if it is in force."""
        if found is None or found.ticket is None:
            return None
        try:
            value = self.sealer.open(found.ticket, context=js_ticket_context(app_id)).decode()
        except CannotOpen:  # the secret key has changed
            return None
        ticket = _Ticket(value, found.ends_at, found.renews_at)
        return ticket if ticket.is_good(now) else None

    async def _fetch(self, app: App, now: datetime) -> _Ticket:
        app_id = app.app_id
        try:
            value, expires_in = await self.wechat_api.js_ticket(app)
        except WeChatError as exc:
            until = self.clock() + FAILURE_PAUSE  # not before: WeChat may have taken as long to fail
            self._failed[app_id] = exc, until
            await self.database.run(RELEASE_TICKET, app_id=app_id, until=until)
            log.warning("js_ticket_not_renewed", app_id=app_id, reason=exc.code)
            raise
        ends_at = now + timedelta(seconds=expires_in)
        renews_at = max(ends_at - RENEWAL_LEAD + self.jitter() * RENEWAL_SPREAD, now + RENEWAL_PAUSE)
        sealed = self.sealer.seal(value.encode(), context=js_ticket_context(app_id))
        times = {"ends_at": ends_at, "renews_at": renews_at, "now": now}
        await self.database.run(STORE_TICKET, app_id=app_id, ticket=sealed, **times)
        log.info("js_ticket_renewed", app_id=app_id, expires_in=expires_in)
        self._failed.pop(app_id, None)
        made = self._kept[app_id] = _Ticket(value, ends_at, renews_at)
        return made
