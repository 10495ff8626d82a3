"""The QR code of a device's login, which wxauth's page shows in a browser (RFC 8628, section 3.3).

An attacker can start a login on a device of their own, and send its link or its user code to a victim. Therefore, a
page first names the program and the place of its request. It shows the QR code only after a press, which no other site
can cause, and never for a login that another page of wxauth has started.
"""

import hmac
from datetime import datetime
from math import ceil

from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.services import part
from wxauth.random_secrets import hash_of
from wxauth.sites import queries
from wxauth.sites.asking import ScanLimits
from wxauth.sites.door import Door
from wxauth.sites.models import UNDECIDED, Stage
from wxauth.sites.queries import SiteLogin
from wxauth.sites.responses import Browser
from wxauth.sites.secrets import SCENE, UserCodes, show_code_field
from wxauth.sites.waiting import PageState, ScanPageOver, state_of


@part
class DeviceCodes:
    database: Database
    clock: Clock
    user_codes: UserCodes
    scan_limits: ScanLimits

    async def takes_user_codes(self) -> bool:
        """Return whether at least one client was added with `--device` and `--user-code`."""
        return await self.database.value(queries.TAKES_USER_CODES) is True

    async def find(self, scene: str) -> SiteLogin | None:
        """Return the login that a device has started with this scene; None if no device has.

        Raises: ScanPageOver, if a phone can no longer claim the login.
        """
        login = await self._find(scene)
        if login is not None and not _is_pending(login, now=self.clock()):
            raise ScanPageOver("the login of this device has expired or has already been decided")
        return login

    async def state(self, scene: str) -> PageState:
        """Return the state that the page shows below the QR code. The device redeems an approved login at once."""
        login = await self._find(scene)
        if login is None:
            return PageState.OVER
        return PageState.APPROVED if login.stage == Stage.REDEEMED else state_of(login, now=self.clock())

    async def _find(self, scene: str) -> SiteLogin | None:
        if not SCENE.fullmatch(scene):
            return None
        login = await self.database.row(queries.BY_SCENE, scene_hash=hash_of(scene))
        return None if login is None or login.device_code_hash is None else login

    async def type(self, user_code: str, *, ip: str | None) -> SiteLogin | None:
        """Return the pending login with this user code, even if it accepts no typed code; None if there is none.

        If a device that accepts typed codes shows the code, the phone warns its user from now on, as if the code had
        been typed there. Raises: RateLimited.
        """
        await self.scan_limits.browsers.admit_address(ip)
        async with self.database.begin() as transaction:
            login = await transaction.row(
                queries.LOCK_SHOWN, scene_hash=None, user_code_hashes=self.user_codes.hashes(user_code)
            )
            if login is None or not _is_pending(login, now=self.clock()):
                return None
            if login.user_code and not login.has_page:
                login.door = Door.TYPED
                await queries.save(transaction, login)
        return login

    def scene_of(self, login: SiteLogin) -> str | None:
        """Return the scene of a login; None if it was made with a secret key that has been removed."""
        scenes = self.user_codes.scenes(login.id)
        return next((scene for scene in scenes if hash_of(scene) == login.scene_hash), None)

    def seconds_left(self, login: SiteLogin) -> int:
        return ceil((login.scan_ends_at - self.clock()).total_seconds())


def is_pressed(browser: Browser, scene: str, field: str) -> bool:
    """Return whether the user of this browser has pressed the button on the page that names the program."""
    expected = show_code_field(browser.cookie, scene)
    return bool(browser.cookie) and hmac.compare_digest(field.encode(), expected.encode())


def _is_pending(login: SiteLogin, *, now: datetime) -> bool:
    return login.stage in UNDECIDED and login.scan_ends_at > now
