"""The pictures of the codes that users scan: WeChat's mini-program codes, or ordinary QR codes."""

import asyncio
from dataclasses import field
from functools import lru_cache
from io import BytesIO
from typing import Final
from uuid import UUID

from wxauth import errors
from wxauth.apps.registry import Apps
from wxauth.core.background import once
from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.random_secrets import hash_of
from wxauth.settings.settings import Settings
from wxauth.sites.asking import ScanLimits
from wxauth.sites.door import SCAN_LASTS
from wxauth.sites.queries import SHOWN_CODE, ShownCode, keep_picture
from wxauth.sites.secrets import SCENE, qr_code_url
from wxauth.wechat.api import CODE_PIXELS, CodePicture, WeChatApi
from wxauth.wechat.client import log_not_made
from wxauth.wechat.errcodes import Api

_SCALE: Final = 10  # pixels per module
_MODULES: Final = CODE_PIXELS // _SCALE  # of a picture as wide as WeChat's; larger codes make a wider picture
_MIN_BORDER: Final = 4  # modules; readers need so much white around a code

log = get_logger()


@part
class ScanPictures:
    """The pictures of scans (logins whose code a phone scans).

    WeChat makes a mini-program code for each scan. If it makes none, wxauth draws an ordinary QR code. With
    `SCAN_CODE=link`, wxauth draws all codes and stores none, because it can draw them again.
    """

    settings: Settings
    database: Database
    clock: Clock
    apps: Apps
    wechat_api: WeChatApi
    scan_limits: ScanLimits
    # Simultaneous requests share one call to WeChat.
    _being_made: dict[UUID, asyncio.Task[CodePicture]] = field(default_factory=dict, init=False)

    async def of(self, scene: str) -> CodePicture:
        """Return the picture of the pending scan with this scene. Raises: NotFound, if there is no such scan."""
        scan = await self._find_scan(scene)
        if self.settings.scan_code == "link":
            return await self._link_picture(scene)
        if scan.picture:
            return scan.picture
        return await once(self._being_made, scan.id, lambda: self._make(scene))

    async def _find_scan(self, scene: str) -> ShownCode:
        scan = None
        if SCENE.fullmatch(scene):
            now = self.clock()
            scan = await self.database.row(
                SHOWN_CODE,
                scene_hash=hash_of(scene),
                created_after=now - SCAN_LASTS,  # a code expires earlier than a page that also has a link
                now=now,
            )
        if scan is None:
            raise errors.NotFound("no pending scan has this scene")
        return scan

    async def _make(self, scene: str) -> CodePicture:
        scan = await self._find_scan(scene)  # again, because another request may have stored a picture since
        if scan.picture:
            return scan.picture
        picture = await self._mini_program_code(scan, scene)
        if picture is None:
            picture = await self._link_picture(scene)
        return await keep_picture(self.database, scan.id, picture)

    async def _mini_program_code(self, scan: ShownCode, scene: str) -> CodePicture | None:
        settings = self.settings
        try:
            app = self.apps.for_login(scan.app_id)
        except errors.UnknownApp:
            app = None
        if app is None or not app.is_mini_program:
            change = "the site's --app isn't a configured mini-program"
            log.error("mini_program_code_not_made", app_id=scan.app_id, what_to_change=change)
            return None
        try:
            await self.scan_limits.pictures.admit(app.app_id)
            return await self.wechat_api.mini_program_code(app, scene, page=settings.scan_page, env=settings.scan_env)
        except errors.RateLimited:
            log.warning("mini_program_code_not_made", app_id=app.app_id, reason="WXAUTH_SCAN_PICTURE_LIMIT")
        except errors.WeChatError as exc:
            log_not_made("mini_program_code_not_made", app, exc, api=Api.MINI_PROGRAM_CODE)
        return None

    async def _link_picture(self, scene: str) -> CodePicture:
        content = await asyncio.to_thread(_draw, qr_code_url(self.settings.issuer, scene))
        return CodePicture(content, "image/png")


@lru_cache(maxsize=256)  # cached, because drawing takes milliseconds, and requests for a picture are not limited
def _draw(text: str) -> bytes:
    import segno  # imported here, so that a process that draws no QR codes saves 2 MB of memory

    output = BytesIO()
    code = segno.make_qr(text, error="m")
    border = max(_MIN_BORDER, (_MODULES - len(code.matrix)) // 2)
    code.save(output, kind="png", scale=_SCALE, border=border)
    return output.getvalue()
