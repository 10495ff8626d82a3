"""What WeChat makes for a login: the picture of a scan's code, and an app's URL Link."""

import asyncio
from dataclasses import field
from datetime import datetime, timedelta
from functools import lru_cache
from io import BytesIO
from typing import Final
from uuid import UUID

from wxauth.errors import NotFound, RateLimited, UnknownApp, WeChatError, WeChatMisconfigured, WxAuthError
from wxauth.server.apps.registry import Apps
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.sealing import CannotOpen, Sealer, url_link_context
from wxauth.server.core.services import part
from wxauth.server.core.settings import App, Settings
from wxauth.server.websites import scan_code_rows
from wxauth.server.websites.doors import URL_LINK_LASTS, URL_LINK_RENEWED_AFTER
from wxauth.server.websites.models import SealedUrlLink
from wxauth.server.websites.scan_code_rows import ShownCode
from wxauth.server.websites.secrets import SCENE, hash_of
from wxauth.server.websites.site_requests import ScanLimits
from wxauth.server.wechat.api import CodePicture, WeChatApi
from wxauth.server.wechat.errcodes import MINI_PROGRAM_CODE, URL_LINK, what_to_change

_SCALE: Final = 8
"""Pixels per module of the code. 37 modules and a border of 4 on each side make 360 pixels."""
_PAUSE_AFTER_FAILURE: Final = timedelta(minutes=1)
"""How long pages have no button, and WeChat is not asked again, after it has made no link."""
_RENEWED_AGAIN_AFTER: Final = timedelta(hours=1)

log = get_logger()


@part
class ScanPictures:
    """Makes a scan's picture on first request, and keeps it as long as the scan is stored."""

    settings: Settings
    database: Database
    clock: Clock
    apps: Apps
    wechat_api: WeChatApi
    scan_limits: ScanLimits
    _being_made: dict[UUID, asyncio.Task[CodePicture]] = field(default_factory=dict, init=False)

    async def of(self, scene: str) -> CodePicture:
        """The picture of an open scan. Raises: NotFound."""
        scan = None
        if SCENE.fullmatch(scene):
            scan = await scan_code_rows.shown_code(self.database, hash_of(scene), now=self.clock())
        if scan is None:
            raise NotFound("there is no open scan of this scene")
        if self.settings.scan_code == "link":
            return await self._link(scene)
        if scan.content is not None and scan.content_type is not None:
            return CodePicture(scan.content, scan.content_type)
        making = self._being_made.get(scan.id)
        if making is None:
            making = self._being_made[scan.id] = asyncio.create_task(self._make(scan, scene))
            making.add_done_callback(lambda _: self._being_made.pop(scan.id, None))
        return await asyncio.shield(making)  # others may wait for it after this request is cancelled

    async def _make(self, scan: ShownCode, scene: str) -> CodePicture:
        picture = await self._mini_program_code(scan, scene) or await self._link(scene)
        return await scan_code_rows.keep_picture(self.database, scan.id, picture)

    async def _mini_program_code(self, scan: ShownCode, scene: str) -> CodePicture | None:
        """WeChat's mini-program code; None if WeChat makes none. The reason is logged."""
        settings = self.settings
        try:
            app = self.apps.for_login(scan.app_id)
            if not app.is_mini_program:
                raise UnknownApp("only a mini-program has codes")
            await self.scan_limits.pictures.admit(app.app_id)
            return await self.wechat_api.mini_program_code(app, scene, page=settings.scan_page, env=settings.scan_env)
        except UnknownApp:
            change = "the site was added with an --app that is no configured mini-program"
            log.error("mini_program_code_not_made", app_id=scan.app_id, what_to_change=change)
        except RateLimited:
            log.warning("mini_program_code_not_made", app_id=app.app_id, reason="WXAUTH_SCAN_PICTURE_LIMIT")
        except WeChatMisconfigured as exc:
            advice = what_to_change(exc.errcode or 0, api=MINI_PROGRAM_CODE)
            log.error("mini_program_code_not_made", app_id=app.app_id, errcode=exc.errcode, what_to_change=advice)
        except WeChatError as exc:
            log.warning("mini_program_code_not_made", app_id=app.app_id, errcode=exc.errcode, reason=exc.detail)
        return None

    async def _link(self, scene: str) -> CodePicture:
        """An ordinary QR code of `verification_uri_complete`."""
        content = await asyncio.to_thread(_drawn, f"{self.settings.issuer}/d/{scene}")
        return CodePicture(content, "image/png")


@lru_cache(maxsize=256)  # drawing takes milliseconds, and requests for a picture are not limited
def _drawn(text: str) -> bytes:
    import segno  # 2 MB with its XML writers, which a process without such pictures does not need

    output = BytesIO()
    segno.make_qr(text, error="m").save(output, kind="png", scale=_SCALE)
    return output.getvalue()


@part
class UrlLinks:
    """Has WeChat make an app's link when a page first needs one, and renews it before it ends."""

    settings: Settings
    database: Database
    clock: Clock
    apps: Apps
    sealer: Sealer
    wechat_api: WeChatApi
    _being_made: dict[str, asyncio.Task[str | None]] = field(default_factory=dict, init=False)
    _not_before: dict[str, datetime] = field(default_factory=dict, init=False)
    """When WeChat may be asked again for an app's link."""

    @property
    def _opens(self) -> str:
        return f"{self.settings.scan_env} {self.settings.scan_page}"

    async def of(self, app: App) -> str | None:
        """The link of an app; None if WeChat makes none."""
        link = await scan_code_rows.url_link(self.database, app.app_id)
        if link is not None and link.opens == self._opens and self.clock() < link.made_at + URL_LINK_LASTS:
            try:
                return self.sealer.open(link.sealed, context=url_link_context(app.app_id)).decode()
            except CannotOpen:
                log.warning("url_link_not_opened", app_id=app.app_id)
        making = self._being_made.get(app.app_id)
        if making is None:
            not_before = self._not_before.get(app.app_id)
            if not_before is not None and self.clock() < not_before:
                return None
            making = self._being_made[app.app_id] = asyncio.create_task(self._make(app))
            making.add_done_callback(lambda _: self._being_made.pop(app.app_id, None))
        return await asyncio.shield(making)  # others may wait for it after this request is cancelled

    async def renew(self, *, size: int) -> None:
        """Renew the links that are due, and delete those that no longer work."""
        now = self.clock()
        await scan_code_rows.delete_old(self.database, made_before=now - URL_LINK_LASTS)
        if self.settings.scan_link != "url":
            return
        due = await scan_code_rows.take_due(self.database, size=size, now=now, retry_at=now + _RENEWED_AGAIN_AFTER)
        for link in due:
            try:
                app = self.apps.for_login(link.app_id)
            except WxAuthError:  # removed, disabled, or not read yet
                continue
            await self._make(app)

    async def _make(self, app: App) -> str | None:
        now = self.clock()
        try:
            url = await self.wechat_api.url_link(app, page=self.settings.scan_page, env=self.settings.scan_env)
        except WeChatError as exc:
            self._not_before[app.app_id] = now + _PAUSE_AFTER_FAILURE
            if isinstance(exc, WeChatMisconfigured):
                advice = what_to_change(exc.errcode or 0, api=URL_LINK)
                log.error("url_link_not_made", app_id=app.app_id, errcode=exc.errcode, what_to_change=advice)
            else:
                log.warning("url_link_not_made", app_id=app.app_id, errcode=exc.errcode, reason=exc.detail)
            return None
        sealed = self.sealer.seal(url.encode(), context=url_link_context(app.app_id))
        await scan_code_rows.put_url_link(
            self.database,
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
