"""The tickets of WeChat's JS-SDK, and the signatures that pages need to use the JS-SDK.

WeChat returns the same ticket until shortly before it expires, and limits the number of requests. Therefore, one
process fetches the ticket for all replicas, and each process keeps a copy in memory.
"""

import asyncio
import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha1
from typing import Final

from wxauth.apps.queries import FIND_TICKET, LEASE_TICKET, PAUSE_TICKET, STORE_TICKET, SealedTicket
from wxauth.core.background import cancel, once, task_of
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.sealing import CannotOpen, Sealer, js_ticket_context
from wxauth.core.services import part
from wxauth.errors import WeChatError, WeChatTimeout
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.wechat.api import WeChatApi
from wxauth.wechat.wechat_tokens import FAILURE_PAUSE, LONGEST_LIFE_SECONDS, NEVER, CachedSecret

_POLL_SECONDS: Final = 0.1  # between two reads of the ticket that another process fetches
_NONCE_BYTES: Final = 12  # 16 characters in base64url

log = get_logger()


@dataclass(frozen=True, slots=True)
class JsSignature:
    """The parameters with which a page calls `wx.config`, apart from the app's id and the list of APIs."""

    timestamp: int
    nonce: str
    signature: str


@part
class JsTickets:
    settings: Settings
    database: Database
    clock: Clock
    sealer: Sealer
    wechat_api: WeChatApi
    _cached: dict[str, CachedSecret] = field(init=False, default_factory=partial(defaultdict, CachedSecret))
    _under_way: dict[str, asyncio.Task[None]] = field(init=False, default_factory=dict)
    """All callers in this process share the task of an app."""

    async def sign(self, app: App, url: str) -> JsSignature:
        """Return the signature for a page. The call waits for WeChat only if there is no valid ticket."""
        now = self.clock()
        cached = self._cached[app.app_id]
        if cached.drop_future_times(now):
            # The ticket might have ended, and wxauth would not notice: WeChat refuses a token in a response to wxauth,
            # but a ticket in a response to the page.
            cached.ends_at = NEVER
        if not cached.is_good(now):
            # Another process might have stored a valid ticket, so that this call does not have to wait for `_renew`.
            self._use_stored(cached, app.app_id, await self.database.row(FIND_TICKET, app_id=app.app_id), now)
        renew = partial(self._renew, app, cached)
        if not cached.is_good(now):
            await once(self._under_way, app.app_id, renew)
        elif now >= max(cached.renews_at, cached.paused_until):
            _ = task_of(self._under_way, app.app_id, renew)  # this caller does not await the task
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        timestamp = int(now.timestamp())
        url_without_fragment = url.partition("#")[0]
        text = f"jsapi_ticket={cached.value}&noncestr={nonce}&timestamp={timestamp}&url={url_without_fragment}"
        # WeChat prescribes SHA-1.
        return JsSignature(timestamp, nonce, sha1(text.encode(), usedforsecurity=False).hexdigest())

    async def aclose(self) -> None:
        await cancel(self._under_way.values())

    async def _renew(self, app: App, cached: CachedSecret) -> None:
        # A fetch takes at most one timeout, and then the ticket must be stored.
        lease = timedelta(seconds=2 * self.settings.wechat_timeout)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + lease.total_seconds()  # another process might have a lease that has just begun
        while True:
            now = self.clock()
            stored = await self.database.row(FIND_TICKET, app_id=app.app_id)
            is_usable = self._use_stored(cached, app.app_id, stored, now)
            if is_usable and now < cached.renews_at:
                return
            cached.ensure_not_paused(now)

            unusable = stored.ticket if stored is not None and not is_usable else None
            values = {"app_id": app.app_id, "unusable": unusable, "until": now + lease, "now": now}
            is_leased = await self.database.value(LEASE_TICKET, **values) is not None
            if is_leased:
                await self._fetch(app, cached, now)
            if is_leased or is_usable:  # without a lease, a usable ticket is enough while another process renews it
                return
            if loop.time() > deadline:
                timeout = WeChatTimeout("no other process fetched the ticket in time")
                cached.fail(timeout, now=now, pause=FAILURE_PAUSE)
                raise timeout
            await asyncio.sleep(_POLL_SECONDS)

    def _use_stored(self, cached: CachedSecret, app_id: str, stored: SealedTicket | None, now: datetime) -> bool:
        latest = now + timedelta(seconds=LONGEST_LIFE_SECONDS)  # a later end is of a replica with a wrong clock
        if stored is None or stored.ticket is None or not now < stored.ends_at <= latest:
            return False
        try:
            ticket = self.sealer.open(stored.ticket, context=js_ticket_context(app_id)).decode()
        except CannotOpen:  # the secret key has changed
            return False
        cached.keep(ticket, ends_at=stored.ends_at, renews_at=stored.renews_at, now=now)
        return True

    async def _fetch(self, app: App, cached: CachedSecret, now: datetime) -> None:
        app_id = app.app_id
        try:
            value, expires_in = await self.wechat_api.js_ticket(app)
        except WeChatError as exc:
            # The pause begins after the failure, because the request may have taken longer than the pause.
            cached.fail(exc, now=self.clock(), pause=FAILURE_PAUSE)
            await self.database.run(PAUSE_TICKET, app_id=app_id, until=cached.paused_until)
            log.warning("js_ticket_not_renewed", app_id=app_id, reason=exc.code)
            raise
        cached.take(value, expires_in, now=now)
        sealed = self.sealer.seal(value.encode(), context=js_ticket_context(app_id))
        times = {"ends_at": cached.ends_at, "renews_at": cached.renews_at, "now": now}
        await self.database.run(STORE_TICKET, app_id=app_id, ticket=sealed, **times)
        log.info("js_ticket_renewed", app_id=app_id, expires_in=expires_in)
