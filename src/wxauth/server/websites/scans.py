"""The scan: a phone claims the code that a site shows, and the person approves or denies the login."""

import re
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Final
from uuid import UUID

from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    LoginTooOld,
    RateLimited,
    ScanForwarded,
    ScanOver,
    ScanTaken,
    ScanTooFar,
    WxAuthError,
)
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.parts import part
from wxauth.server.core.settings import Settings
from wxauth.server.core.users import STAFF_ROLES, UserInSession
from wxauth.server.login.proof import Proofs
from wxauth.server.sessions.rows import user_of_session
from wxauth.server.users.account import Caller
from wxauth.server.users.callers import ADMIN_SCOPE, is_fresh
from wxauth.server.websites import scan_rows
from wxauth.server.websites.browser_logins import is_web_view
from wxauth.server.websites.doors import AMR, DOORS, MAKES_BROWSER_LOGIN, Door, DoorOutcome
from wxauth.server.websites.durations import CLAIM_LASTS, SCAN_LASTS
from wxauth.server.websites.grant_rows import add_grant, lock_person, record_approval
from wxauth.server.websites.link_rows import claim_link, lock_open_link
from wxauth.server.websites.models import GrantFields
from wxauth.server.websites.scan_rows import SCANS, ClaimedScan, OpenScan, ScanOutcome, Verdict
from wxauth.server.websites.secrets import SCENE, UserCodes, hash_of

WRONG_USER_CODES: Final = 5
"""How many wrong codes one user may type per minute."""
FROM_CAMERA: Final = frozenset({1011, 1047})
"""WeChat's entry scenes for pages opened by the camera, from an ordinary QR code and from a mini-program code."""

BY_LINK: Final = frozenset({1286, 1065, 1194})
"""WeChat's entry scenes for pages opened by a link outside WeChat: a plaintext scheme, an encrypted one, a URL Link. A
link opened inside WeChat (1167) was sent to somebody."""

_NOT_HELD: Final = "this session has no such scan to decide upon"

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOpening:
    """How a person reached a scan."""

    scene: str | None = None
    url: str | None = None
    user_code: str | None = None
    scancode_time: float | None = None
    entry_scene: int | None = None
    by_camera: bool = False
    """Whether the mini-program itself has read the code with the camera, without access to the album."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An attempt to claim a scan: who claims it, and how."""

    session_id: UUID
    user_id: UUID
    door: Door
    by_camera: bool
    must_be_near: bool
    is_staff: bool
    """Whether an administrator or support staff claims."""
    is_stale_staff: bool
    """Whether an administrator claims with a session that is not fresh."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A scan that a phone has claimed, and by which door."""

    scan: OpenScan
    door: Door
    sso_ttl: int | None
    """How many seconds its browser may log in to other sites after the approval; None: not at all."""


@part
class Scans:
    """Lets a phone claim, approve or deny a scan."""

    clock: Clock
    settings: Settings
    user_codes: UserCodes
    database: Database
    proofs: Proofs

    async def claim(self, caller: Caller, opening: ScanOpening, *, ip: str | None) -> Claimed:
        """Claim a scan for this session, which may then decide.

        A scan for the console requires a fresh login of an administrator. Otherwise a stolen access token could approve
        a login to it, and so become a fresh session.

        Raises: ScanOver, ScanForwarded, ScanTooFar, LoginTooOld, ScanTaken, RateLimited.
        """
        now = self.clock()
        settings, door = self.settings, Door.SCAN if opening.user_code is None else Door.TYPED
        is_staff = not STAFF_ROLES.isdisjoint(caller.user.roles)
        scene = opening.scene if opening.url is None else scene_in(opening.url, issuer=settings.issuer)
        scene_hash = None if scene is None else hash_of(scene)
        user_code_hashes = self.user_codes.hashes(opening.user_code or "")
        asked = Claim(
            session_id=caller.session_id,
            user_id=caller.user.id,
            door=door,
            by_camera=settings.scan_entry == "any" or _is_from_camera(opening, now),
            must_be_near=is_staff and not settings.scan_admin_anywhere,
            is_staff=is_staff,
            is_stale_staff=is_staff
            and not await is_fresh(self.database, caller.session_id, longest=settings.admin_fresh_login, now=now),
        )
        if door is Door.TYPED:
            await _count_try(self.database, caller, now=now)
        async with self.database.begin() as transaction:
            scan = await scan_rows.lock_open_scan(
                transaction, scene_hash=scene_hash, user_code_hashes=user_code_hashes, ip=ip, now=now
            )
            refusal = None if scan is None else await _refusal(transaction, scan, asked, now=now)
            if scan is None and scene_hash is not None and door is Door.SCAN:
                scan = await lock_open_link(transaction, scene_hash, now=now)
                if scan is not None:
                    door, refusal = Door.LINK, await _refusal_of_link(transaction, scan, asked, opening, now=now)
            elif scan is not None and refusal is None and opening.entry_scene in BY_LINK and door is Door.SCAN:
                refusal = ScanForwarded("a link has opened the page, and this scene is of a picture")
            if scan is not None and refusal is None:
                if door is Door.LINK:
                    await claim_link(transaction, scan.id, session_id=asked.session_id, now=now)
                else:
                    await scan_rows.store_claim(transaction, scan, session_id=asked.session_id, door=door, now=now)
        if scan is None:
            raise ScanOver("there is no such scan that could be decided upon")
        if door is Door.TYPED:
            await scan_rows.give_try_back(self.database, asked.user_id)
        fields = {"scan_id": scan.id, "client_id": scan.client_id, "user_id": asked.user_id}
        if refusal is not None:
            log.warning("scan_refused", reason=refusal.code, entry_scene=opening.entry_scene, **fields)
            raise refusal
        if door is not Door.LINK:
            SCANS.count(ScanOutcome.CLAIMED)
        log.info("scan_claimed", same_network=scan.same_network, door=door, **fields)
        return Claimed(scan, door, self._sso_ttl(scan, door))

    def _sso_ttl(self, scan: OpenScan, door: Door) -> int | None:
        is_shared = scan.sso and scan.is_page and not is_web_view(scan.browser_user_agent or "")
        return (self.settings.sso_ttl or None) if is_shared and door in MAKES_BROWSER_LOGIN else None

    async def approve(self, caller: Caller, scan_id: UUID, login_code: str, *, ip: str | None) -> None:
        """Approve a scan that this session has claimed, proved by a new `wx.login`. Idempotent.

        WeChat is asked only while the scan can still be approved. Changes in the meantime are detected when the verdict
        is stored.

        Raises: ScanOver, RateLimited, UnknownApp, WeChatError, WrongPerson.
        """
        if await _is_approved(self.database, self.clock, caller, scan_id):
            return
        try:
            await self.proofs.prove(caller, login_code, ip=ip)
        except (CodeUsed, InvalidCode):
            # The same request may have been sent twice, and the other one has spent the code.
            if await _is_approved(self.database, self.clock, caller, scan_id):
                return
            raise
        await self.decide(caller, scan_id, Verdict.APPROVED, ip=ip)

    async def decide(self, caller: Caller, scan_id: UUID, verdict: Verdict, *, ip: str | None) -> None:
        """Store the verdict on a scan that this session has claimed. Idempotent.

        Raises: ScanOver.
        """
        now, session_id = self.clock(), caller.session_id
        async with self.database.begin() as transaction:
            person = await lock_person(transaction, session_id, now=now)
            scan = await scan_rows.lock_claimed_scan(transaction, scan_id, session_id=session_id, now=now)
            if person is not None and scan is not None and scan.verdict is None:
                await scan_rows.store_verdict(transaction, scan_id, verdict)
                if verdict is Verdict.APPROVED:
                    await _grant(transaction, person, scan, session_id=session_id, ip=ip, now=now)
        if person is None or scan is None or scan.verdict not in (None, verdict):
            raise ScanOver(_NOT_HELD)
        if scan.verdict is not None:  # the same one was stored before
            return
        SCANS.count(ScanOutcome(verdict))
        if verdict is Verdict.DENIED:
            DOORS.count(Door(scan.door), DoorOutcome.REFUSED)
        fields = {"scan_id": scan_id, "client_id": scan.client_id, "user_id": person.id}
        log.info("scan_approved" if verdict is Verdict.APPROVED else "scan_denied", **fields)


async def _refusal(transaction: Transaction, scan: OpenScan, claim: Claim, *, now: datetime) -> WxAuthError | None:
    """Why this session may not claim the scan; None if it may."""
    may_be_forwarded = not (scan.user_code or scan.is_page) if claim.door is Door.TYPED else not claim.by_camera
    if may_be_forwarded:
        return ScanForwarded("a camera must have seen the code: entry scene 1047 or 1011, or scanned by the camera")
    if (scan.near or claim.must_be_near) and not scan.same_network:
        return ScanTooFar("phone and browser are not known to be in one network")
    if claim.is_stale_staff and ADMIN_SCOPE in scan.scopes:
        return LoginTooOld()
    return await _taken(transaction, scan, claim, now=now)


async def _refusal_of_link(
    transaction: Transaction, link: OpenScan, claim: Claim, opening: ScanOpening, *, now: datetime
) -> WxAuthError | None:
    """Why this session may not claim the link, whatever `SCAN_ENTRY` allows; None if it may."""
    if opening.entry_scene not in BY_LINK or opening.by_camera:
        return ScanForwarded("a link outside WeChat must have opened the page: entry scene 1286, 1065 or 1194")
    if claim.is_staff:
        return ScanTooFar("administrators and support staff scan a code with the camera")
    return await _taken(transaction, link, claim, now=now)


async def _taken(transaction: Transaction, scan: OpenScan, claim: Claim, *, now: datetime) -> WxAuthError | None:
    holder_id, since = scan.claimed_session_id, scan.claimed_at
    if holder_id is not None and since is not None and since > now - CLAIM_LASTS:
        holder = await user_of_session(transaction, holder_id)
        if holder not in (None, claim.user_id):
            return ScanTaken("another user has claimed it")
    return None


async def _count_try(database: Database, caller: Caller, *, now: datetime) -> None:
    """Count an attempt to type a code. Raises: RateLimited."""
    number, until = await scan_rows.count_try(database, caller.user.id, now=now)
    if number > WRONG_USER_CODES:
        raise RateLimited("too many wrong codes of this user", retry_after=max(1, ceil((until - now).total_seconds())))


async def _is_approved(database: Database, clock: Clock, caller: Caller, scan_id: UUID) -> bool:
    """Whether this session has approved the scan. Raises: ScanOver, if it no longer can."""
    claim = await scan_rows.held_claim(database, scan_id, session_id=caller.session_id, now=clock())
    if claim is None or claim.verdict == Verdict.DENIED:
        raise ScanOver(_NOT_HELD)
    return claim.verdict == Verdict.APPROVED


async def _grant(
    transaction: Transaction,
    person: UserInSession,
    scan: ClaimedScan,
    *,
    session_id: UUID,
    ip: str | None,
    now: datetime,
) -> None:
    """Store what the person has granted, and record the approval."""
    grant = GrantFields(
        id=scan.id,
        client_id=scan.client_id,
        scope=scan.scope,
        door=Door(scan.door),
        app_id=person.app_id,
        openid=person.openid,
        approving_session_id=session_id,
        authenticated_at=now,
        authenticated_by=AMR[Door(scan.door)],
        browser_ip=scan.browser_ip,
        browser_user_agent=scan.browser_user_agent,
        expires_at=scan.expires_at,
    )
    await add_grant(transaction, grant)
    await record_approval(
        transaction,
        person,
        scan_id=scan.id,
        client_id=scan.client_id,
        browser_ip=scan.browser_ip,
        ip=ip,
        now=now,
    )


def scene_in(url: str, *, issuer: str) -> str | None:
    """The scene in a scan link of this service; None for any other URL."""
    rest = url.removeprefix(f"{issuer}/d/")
    scene = re.split(r"[?#]", rest, maxsplit=1)[0]
    return scene if rest != url and SCENE.fullmatch(scene) else None


def _is_from_camera(opening: ScanOpening, now: datetime) -> bool:
    """Whether a camera has just read the code. Otherwise it may be a picture that was forwarded to the person."""
    is_old = opening.scancode_time is not None and now.timestamp() - opening.scancode_time > SCAN_LASTS.total_seconds()
    return not is_old and (opening.by_camera or opening.entry_scene in FROM_CAMERA)
