"""WeChat's URL Links: one for each app, which opens the page for scans from any browser."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from wxauth.errors import WeChatError, WeChatMisconfigured, WxAuthError
from wxauth.server.apps.registry import Apps
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import CannotOpen, Sealer, url_link_context
from wxauth.server.core.settings import App, Settings
from wxauth.server.websites import url_link_rows
from wxauth.server.websites.durations import URL_LINK_LASTS, URL_LINK_RENEWED_AFTER
from wxauth.server.websites.models import SealedUrlLink
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.errcodes import URL_LINK, what_to_change

_PAUSE_AFTER_FAILURE: Final = timedelta(minutes=1)
"""How long pages have no button, and WeChat is not asked again, after it has made no link."""
_RENEWED_AGAIN_AFTER: Final = timedelta(hours=1)

log = get_logger()


class UrlLinks:
    """Has WeChat make an app's link when a page first needs one, and renews it before it ends."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        clock: Clock,
        apps: Apps,
        sealer: Sealer,
        wechat_api: WeChatApi,
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._apps = apps
        self._sealer = sealer
        self._wechat_api = wechat_api
        self._opens = f"{settings.scan_env} {settings.scan_page}"
        self._being_made: dict[str, asyncio.Task[str | None]] = {}
        self._not_before: dict[str, datetime] = {}
        """When WeChat may be asked again for an app's link."""

    async def of(self, app: App) -> str | None:
        """The link of an app; None if WeChat makes none."""
        link = await url_link_rows.url_link(self._database, app.app_id)
        if link is not None and link.opens == self._opens and self._clock() < link.made_at + URL_LINK_LASTS:
            try:
                return self._sealer.open(link.sealed, context=url_link_context(app.app_id)).decode()
            except CannotOpen:
                log.warning("url_link_not_opened", app_id=app.app_id)
        making = self._being_made.get(app.app_id)
        if making is None:
            not_before = self._not_before.get(app.app_id)
            if not_before is not None and self._clock() < not_before:
                return None
            making = self._being_made[app.app_id] = asyncio.create_task(self._make(app))
            making.add_done_callback(lambda _: self._being_made.pop(app.app_id, None))
        return await asyncio.shield(making)  # others may wait for it after this request is cancelled

    async def renew(self, *, size: int) -> None:
        """Renew the links that are due, and delete those that no longer work."""
        now = self._clock()
        await url_link_rows.delete_old(self._database, made_before=now - URL_LINK_LASTS)
        if self._settings.scan_link != "url":
            return
        due = await url_link_rows.take_due(self._database, size=size, now=now, retry_at=now + _RENEWED_AGAIN_AFTER)
        for link in due:
            try:
                app = self._apps.for_login(link.app_id)
            except WxAuthError:  # removed, disabled, or not read yet
                continue
            await self._make(app)

    async def _make(self, app: App) -> str | None:
        now = self._clock()
        try:
            url = await self._wechat_api.url_link(app, page=self._settings.scan_page, env=self._settings.scan_env)
        except WeChatError as exc:
            self._not_before[app.app_id] = now + _PAUSE_AFTER_FAILURE
            if isinstance(exc, WeChatMisconfigured):
                advice = what_to_change(exc.errcode or 0, api=URL_LINK)
                log.error("url_link_not_made", app_id=app.app_id, errcode=exc.errcode, what_to_change=advice)
            else:
                log.warning("url_link_not_made", app_id=app.app_id, errcode=exc.errcode, reason=exc.detail)
            return None
        sealed = self._sealer.seal(url.encode(), context=url_link_context(app.app_id))
        await url_link_rows.put_url_link(
            self._database,
            SealedUrlLink(
                app_id=app.app_id,
                opens=self._opens,
                sealed=sealed,
                made_at=now,
                renew_at=now + URL_LINK_RENEWED_AFTER,
            ),
        )
        log.info("url_link_made", app_id=app.app_id)
        return url
