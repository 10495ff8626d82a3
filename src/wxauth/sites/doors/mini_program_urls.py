"""The URLs that open a site's mini-program from a phone's browser outside WeChat.

The setting `SCAN_LINK` chooses WeChat's plaintext links, which wxauth builds itself, URL Links, which WeChat makes, or
none.
"""

import asyncio
from collections import defaultdict
from dataclasses import field
from datetime import timedelta
from functools import partial
from typing import Final
from urllib.parse import quote, urlencode

from wxauth.apps.registry import Apps
from wxauth.core.background import once
from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.errors import WeChatError
from wxauth.settings.apps import App
from wxauth.settings.settings import Settings
from wxauth.wechat.api import URL_LINK_LASTS, WeChatApi
from wxauth.wechat.client import log_not_made
from wxauth.wechat.errcodes import Api
from wxauth.wechat.wechat_tokens import CachedSecret

_PLAINTEXT_LINK: Final = "weixin://dl/business/"
# If WeChat makes no new link, the previous one is still valid for five days.
_RENEWED_AFTER: Final = URL_LINK_LASTS - timedelta(days=5)
_PAUSE_AFTER_FAILURE: Final = timedelta(minutes=1)

log = get_logger()


@part
class UrlLinks:
    """The cache of WeChat's URL Links in one process. All logins with an app share the app's link."""

    settings: Settings
    clock: Clock
    wechat_api: WeChatApi
    # The keys are the apps' ids.
    _links: dict[str, CachedSecret] = field(default_factory=partial(defaultdict, CachedSecret), init=False)
    _being_made: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)

    async def of(self, app: App) -> str | None:
        """Return the URL Link of an app; None if WeChat does not make one, and no earlier link is still valid."""
        now = self.clock()
        link = self._links[app.app_id]
        if now >= max(link.renews_at, link.paused_until):
            await once(self._being_made, app.app_id, partial(self._make, app, link))
        return link.value if link.is_good(now) else None

    async def _make(self, app: App, link: CachedSecret) -> None:
        now = self.clock()
        try:
            url = await self.wechat_api.url_link(app, page=self.settings.scan_page, env=self.settings.scan_env)
        except WeChatError as exc:
            link.fail(exc, now=now, pause=_PAUSE_AFTER_FAILURE)
            log_not_made("url_link_not_made", app, exc, api=Api.URL_LINK)
        else:
            link.keep(url, ends_at=now + URL_LINK_LASTS, renews_at=now + _RENEWED_AFTER, now=now)
            log.info("url_link_made", app_id=app.app_id)


@part
class MiniProgramUrls:
    """The URLs that open mini-programs. A URL is first made without a scene, because many logins share it."""

    settings: Settings
    apps: Apps
    url_links: UrlLinks

    async def of(self, app_id: str | None) -> str | None:
        """Return the URL that opens this app or, without an id, the default app; None if there is no URL now."""
        app = self.apps.find_enabled(app_id)
        if app is None or self.settings.scan_link == "off" or not app.is_mini_program:
            return None
        if self.settings.scan_link == "url":
            return await self.url_links.of(app)
        parameters = {"appid": app.app_id, "path": self.settings.scan_page}
        return f"{_PLAINTEXT_LINK}?{urlencode(parameters, quote_via=quote, safe='/')}"

    def with_scene(self, url: str, scene: str) -> str:
        """Return the URL from `of` with this scene added."""
        if self.settings.scan_link == "url":
            return f"{url}?cq={scene}"  # WeChat copies `cq` into the query of the mini-program's page
        # This query is a parameter of the link, so `urlencode` also encodes its "=".
        parameters = {"query": f"s={scene}"}
        if self.settings.scan_env != "release":
            parameters["env_version"] = self.settings.scan_env
        return f"{url}&{urlencode(parameters, quote_via=quote)}"
