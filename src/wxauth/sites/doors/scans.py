"""The steps of a site's login on the phone, which first claims the login, and then approves or denies it."""

import secrets
from datetime import datetime
from math import ceil
from typing import Final, Literal
from uuid import UUID

from wxauth import errors
from wxauth.clients.queries import LOGO
from wxauth.clients.redirect_uris import is_local, origin_shown
from wxauth.core.clock import Clock
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.sealing import Sealer, link_number_context
from wxauth.core.services import part
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import UserInSession
from wxauth.limits.queries import USER_CODES
from wxauth.login.proofs import Proofs
from wxauth.random_secrets import hash_of
from wxauth.sessions.devices import describe_device
from wxauth.sessions.queries import USER_OF_SESSION
from wxauth.settings.addresses import NEARBY
from wxauth.settings.resources import Resource
from wxauth.settings.roles import STAFF_ROLES
from wxauth.settings.settings import Settings
from wxauth.settings.urls import host_of
from wxauth.sites import queries, user_queries
from wxauth.sites.authorization_codes import makes_browser_login
from wxauth.sites.door import AMR, CLAIM_LASTS, DOOR_LOGINS, NUMBER_LASTS, OUTCOME_KEPT, SCAN_LASTS, Door, DoorOutcome
from wxauth.sites.doors.scan_schemas import BrowserAnswer, ClaimedAnswer, ClaimRequest, NumberAnswer, SiteAnswer
from wxauth.sites.models import UNDECIDED, Stage
from wxauth.sites.queries import LockedLogin, SiteLogin
from wxauth.sites.responses import is_web_view
from wxauth.sites.secrets import UserCodes, scene_in
from wxauth.sites.targets import ResourceAnswer, resource_at
from wxauth.users.callers import ADMIN_SCOPE, Caller, is_fresh
from wxauth_guard.errors import WxAuthError

NUMBER_DIGITS: Final = 6
# WeChat's entry scenes for a QR code and a mini-program code that the camera has read. The messages of
# `refusal_of_opening` name these scenes, and those of links.
CAMERA_ENTRY_SCENES: Final = frozenset({1011, 1047})
# WeChat's entry scenes for a plaintext scheme, an encrypted scheme, and a URL Link. 1167, a link inside WeChat, is
# missing, because somebody might have sent the link.
LINK_ENTRY_SCENES: Final = frozenset({1286, 1065, 1194})
_CLAIMED_DOORS: Final = (Door.SCAN, Door.TYPED, Door.LINK)
_NOT_CLAIMED: Final = "this session has no scan that can be decided"

log = get_logger()


@part
class Scans:
    """The steps of a login on the phone. A login that a phone claims is called a scan, even after a link."""

    clock: Clock
    settings: Settings
    user_codes: UserCodes
    database: Database
    proofs: Proofs
    sealer: Sealer

    async def claim(self, caller: Caller, opening: ClaimRequest, *, language: str, ip: str | None) -> ClaimedAnswer:
        """Claim a scan for the caller's session, so that only this session may decide about it.

        Return what the phone shows, in this language.

        Raises: ScanOver, if no such scan is pending; ScanForwarded, if the phone may have got the code or link from
            another person; ScanTooFar, if the phone might be too far from the browser, or if staff has used a link;
            LoginTooOld; ScanTaken, if another user has claimed it; RateLimited, if the user has typed too many wrong
            user codes.
        """
        now = self.clock()
        is_typed = opening.user_code is not None
        if is_typed:  # counted before the look-up, so that simultaneous attempts cannot pass the limit
            await USER_CODES.count_user(self.database, caller.user, now=now)
        async with self.database.begin() as transaction:
            login, resource = await self._lock_opened(transaction, opening, now=now)
            # A refusal is raised only at the end, because a refused user has still typed a right code.
            refusal = await self._refusal_of_claim(transaction, login, caller, opening, ip=ip, now=now)
            if refusal is None:
                await _store_claim(transaction, login, caller, is_typed=is_typed, now=now)
        if is_typed:  # the limit is for wrong codes only
            await USER_CODES.uncount_user(self.database, caller.user)
        fields = {"scan_id": login.id, "client_id": login.client_id, "user_id": caller.user.id}
        if refusal is not None:
            log.warning("scan_refused", reason=refusal.code, entry_scene=opening.entry_scene, **fields)
            raise refusal
        same_network = _same_network(login, ip)
        log.info("scan_claimed", same_network=same_network, door=login.taken_door, **fields)
        return await self._claimed_answer(login, resource, language, same_network=same_network)

    async def _lock_opened(
        self, transaction: Transaction, opening: ClaimRequest, *, now: datetime
    ) -> tuple[SiteLogin, Resource | None]:
        scene = opening.scene
        if opening.url is not None:
            scene = scene_in(opening.url, issuer=self.settings.issuer)
        login = await transaction.row(
            queries.LOCK_SHOWN,
            scene_hash=None if scene is None else hash_of(scene),
            user_code_hashes=self.user_codes.hashes(opening.user_code or ""),
        )
        if login is None or login.stage not in UNDECIDED or login.scan_ends_at <= now:
            raise errors.ScanOver("there is no such scan that can be decided")
        resource = resource_at(self.settings, login.resource)
        if resource is None and login.resource is not None:
            raise errors.ScanOver("the resource of this scan is no longer in WXAUTH_RESOURCES")
        return login, resource

    async def _refusal_of_claim(
        self,
        transaction: Transaction,
        login: SiteLogin,
        caller: Caller,
        opening: ClaimRequest,
        *,
        ip: str | None,
        now: datetime,
    ) -> WxAuthError | None:
        refusal: WxAuthError | None = refusal_of_opening(login, opening, entry=self.settings.scan_entry, now=now)
        if refusal is None:
            refusal = await self._refusal_of_user(transaction, login, caller.session_id, caller.user, ip=ip, now=now)
        if refusal is None:
            refusal = await _refusal_if_claimed(transaction, login, caller.user.id, now=now)
        return refusal

    # The claim and the approval check the user, because roles and the network can change in between.
    async def _refusal_of_user(
        self,
        transaction: Transaction,
        login: SiteLogin,
        session_id: UUID,
        user: UserInSession,
        *,
        ip: str | None,
        now: datetime,
    ) -> WxAuthError | None:
        is_staff = not STAFF_ROLES.isdisjoint(user.roles)
        if login.door == Door.LINK:
            if is_staff:
                return errors.ScanTooFar("administrators and support staff must scan the QR code with the camera")
            return None  # no network to compare, because a site cannot have both `--link` and `--near`
        must_be_near = login.near or (is_staff and not self.settings.scan_admin_anywhere)
        if must_be_near and not _same_network(login, ip):
            return errors.ScanTooFar("the phone and the browser aren't known to be on the same network")
        # Otherwise, a thief with a stolen access token could approve a login to the console, and get a fresh session.
        if is_staff and ADMIN_SCOPE in login.scopes:
            max_age_seconds = self.settings.admin_fresh_login
            if not await is_fresh(transaction, session_id, max_age_seconds=max_age_seconds, now=now):
                return errors.LoginTooOld()
        return None

    async def _claimed_answer(
        self, login: SiteLogin, resource: Resource | None, language: str, *, same_network: bool | None
    ) -> ClaimedAnswer:
        door = login.taken_door
        browser = None
        address = login.browser_ip or login.requested_ip
        if login.has_page or address is not None:
            browser = BrowserAnswer(device=describe_device(login.browser_user_agent), ip=address)
        in_web_view = is_web_view(login.browser_user_agent or "")
        logs_in_browser = login.has_page and makes_browser_login(self.settings, login, is_web_view=in_web_view)
        return ClaimedAnswer(
            id=login.id,
            client=SiteAnswer(
                id=login.client_id,
                title=login.title,
                logo=await self.database.value(LOGO, name=login.client_id),
                origin=origin_shown(login.redirect_uris, login.redirect_uri),
                host=None if login.client_name is None else host_of(login.client_id),
                local=is_local(login.redirect_uri),
            ),
            resource=None if resource is None else ResourceAnswer.of(resource, login.scope, language),
            browser=browser,
            requested_ip=login.requested_ip,
            same_network=same_network,
            typed=door is Door.TYPED,
            sso_ttl=self.settings.sso_ttl if logs_in_browser else None,
            link=door is Door.LINK,
            created_at=login.created_at,
            expires_at=login.scan_ends_at,
        )

    async def approve(self, caller: Caller, login_id: UUID, login_code: str, *, ip: str | None) -> NumberAnswer | None:
        """Approve a scan that the caller's session has claimed, with a new `wx.login` code as proof.

        After a link, return the number to type in the browser. A repeated request with the same `login_code` gets it
        again. A thief with a stolen access token has another code, and must not read the number.

        Raises: ScanOver, if this session cannot approve it; ScanTooFar, LoginTooOld, if the user may no longer approve
            it; CannotOpen, RateLimited, UnknownApp, WeChatError, WrongPerson.
        """
        # This check comes before the call to WeChat. `_store_approval` checks again under a lock, because the claim can
        # change during the call.
        login = await self._find_claimed(caller, login_id)
        if login.stage == Stage.CLAIMED:
            try:
                await self.proofs.prove(caller, login_code, ip=ip)
            except (errors.CodeUsed, errors.InvalidCode):
                # The phone might have sent this request twice, and the other request has used up the code.
                login = await self._find_claimed(caller, login_id)
                if login.stage == Stage.CLAIMED:
                    raise
            else:
                login = await self._store_approval(caller, login_id, login_code, ip=ip)
        return self._number_of(login, login_code) if login.door == Door.LINK else None

    async def _find_claimed(self, caller: Caller, login_id: UUID) -> SiteLogin:
        login = await self.database.row(queries.BY_ID, id=login_id)
        if login is None or login.stage == Stage.REFUSED or not _can_decide(login, caller, now=self.clock()):
            raise errors.ScanOver(_NOT_CLAIMED)
        return login

    async def _store_approval(self, caller: Caller, login_id: UUID, login_code: str, *, ip: str | None) -> SiteLogin:
        now = self.clock()
        async with self.database.begin() as transaction:
            login, user = await _lock_claimed(transaction, caller, login_id, now=now)
            if login.stage == Stage.REFUSED:
                raise errors.ScanOver(_NOT_CLAIMED)
            if login.stage != Stage.CLAIMED:  # approved before
                return login
            refusal = await self._refusal_of_user(transaction, login, caller.session_id, user, ip=ip, now=now)
            if refusal is not None:
                raise refusal
            door = login.taken_door
            until = login.scan_ends_at
            if door is Door.LINK:
                until = now + NUMBER_LASTS
                self._set_number(login, login_code)
            login.approve(user, authenticated_at=now, authenticated_by=AMR[door], until=until)
            await record_event(
                transaction,
                EventType.SCAN_APPROVED,
                by=Actor(str(user.id), ip),
                at=now,
                user_id=user.id,
                app_id=user.app_id,
                data={"scan_id": login.id, "client_id": login.client_id, "browser_ip": login.browser_ip},
            )
            await queries.save(transaction, login)
        _log_decision(login, user, "approved")
        return login

    def _set_number(self, login: SiteLogin, login_code: str) -> None:
        number = f"{secrets.randbelow(10**NUMBER_DIGITS):0{NUMBER_DIGITS}}"
        login.number = self.sealer.seal(number.encode(), context=link_number_context(login.id))
        login.login_code_hash = hash_of(login_code)  # only a request with this code gets the number again

    def _number_of(self, login: SiteLogin, login_code: str) -> NumberAnswer:
        now = self.clock()
        seconds_left = 0.0 if login.granted_until is None else (login.granted_until - now).total_seconds()
        if login.number is None or login.login_code_hash != hash_of(login_code) or seconds_left <= 0:
            raise errors.ScanOver(_NOT_CLAIMED)
        number = self.sealer.open(login.number, context=link_number_context(login.id)).decode()
        return NumberAnswer(number=number, expires_in=ceil(seconds_left))

    async def deny(self, caller: Caller, login_id: UUID) -> None:
        """Deny a scan that the caller's session has claimed. Raises: ScanOver, if this session cannot deny it."""
        now = self.clock()
        async with self.database.begin() as transaction:
            login, user = await _lock_claimed(transaction, caller, login_id, now=now)
            if login.stage == Stage.REFUSED:
                return
            if login.stage != Stage.CLAIMED:
                raise errors.ScanOver(_NOT_CLAIMED)
            login.stage = Stage.REFUSED
            await queries.save(transaction, login)
        DOOR_LOGINS.count(login.taken_door, DoorOutcome.REFUSED)
        _log_decision(login, user, "denied")


def refusal_of_opening(
    login: SiteLogin, opening: ClaimRequest, *, entry: str, now: datetime
) -> errors.ScanForwarded | None:
    """Return why a phone may not claim a login after opening the page this way. `entry` is the setting `SCAN_ENTRY`.

    Another person might have sent the link, or a picture of the code, to the phone's user.
    """
    is_by_link = opening.entry_scene in LINK_ENTRY_SCENES
    if login.door == Door.LINK:  # `SCAN_ENTRY` does not apply to links
        if is_by_link and not opening.is_read_by_camera:
            return None
        return errors.ScanForwarded("a link outside WeChat must open the page: entry scene 1286, 1065 or 1194")
    not_scanned = errors.ScanForwarded(
        "the QR code must be scanned with the camera: entry scene 1047 or 1011, or scanned by the camera"
    )
    if opening.user_code is not None:
        # On wxauth's own pages, the user code can always be typed. For a device, `--user-code` allows this.
        if login.user_code or login.has_page:
            return None
        return errors.ScanForwarded(
            "this client accepts no typed login codes, because it was added without --user-code"
        )
    if entry != "any" and not _is_from_camera(opening, now):
        return not_scanned
    if is_by_link:
        return errors.ScanForwarded("a link opened the page, but this scene belongs to a QR code")
    return None


def _is_from_camera(opening: ClaimRequest, now: datetime) -> bool:
    if opening.scancode_time is not None:
        age_seconds = now.timestamp() - opening.scancode_time
        if age_seconds > SCAN_LASTS.total_seconds():  # the code that was scanned then has expired
            return False
    return opening.is_read_by_camera or opening.entry_scene in CAMERA_ENTRY_SCENES


async def _refusal_if_claimed(
    transaction: Transaction, login: SiteLogin, user_id: UUID, *, now: datetime
) -> WxAuthError | None:
    if login.claimed_session_id is None or login.claimed_at is None or login.claimed_at <= now - CLAIM_LASTS:
        return None
    claimed_by = await transaction.value(USER_OF_SESSION, session_id=login.claimed_session_id)
    if claimed_by in (None, user_id):  # None: the session has been deleted
        return None
    return errors.ScanTaken("another user has claimed this scan")


async def _store_claim(
    transaction: Transaction, login: SiteLogin, caller: Caller, *, is_typed: bool, now: datetime
) -> None:
    if login.door != Door.LINK:
        # The QR code of a device may appear only after somebody has typed the user code on wxauth's page.
        was_typed = login.door == Door.TYPED and not login.has_page
        login.door = Door.TYPED if is_typed or was_typed else Door.SCAN
    login.stage, login.claimed_session_id, login.claimed_at = Stage.CLAIMED, caller.session_id, now
    # From now on, wxauth stores the login for longer than a login that no phone has claimed.
    login.kept_until = max(login.kept_until, login.scan_ends_at + OUTCOME_KEPT)
    await queries.save(transaction, login)


def _same_network(login: SiteLogin, ip: str | None) -> bool | None:
    if ip is None or login.browser_ip is None:
        return None
    return NEARBY.network_of(ip) == NEARBY.network_of(login.browser_ip)


async def _lock_claimed(
    transaction: Transaction, caller: Caller, login_id: UUID, *, now: datetime
) -> tuple[LockedLogin, UserInSession]:
    user = await user_queries.lock_caller(transaction, caller, now=now)
    login = await transaction.row(queries.LOCK, id=login_id, now=now)
    if user is None or login is None or not _can_decide(login, caller, now=now):
        raise errors.ScanOver(_NOT_CLAIMED)
    return login, user


def _can_decide(login: SiteLogin, caller: Caller, *, now: datetime) -> bool:
    # The login of a site in a web-view also has a `claimed_session_id`, although no phone has claimed it.
    is_claimed = login.door in _CLAIMED_DOORS and login.claimed_session_id == caller.session_id
    until = login.granted_until or login.scan_ends_at
    return is_claimed and until > now


def _log_decision(login: SiteLogin, user: UserInSession, decision: Literal["approved", "denied"]) -> None:
    event = f"{'link' if login.door == Door.LINK else 'scan'}_{decision}"
    log.info(event, scan_id=login.id, client_id=login.client_id, user_id=user.id)
