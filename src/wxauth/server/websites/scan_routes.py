"""Routes for the phone: it claims a code and decides, logs in to the site that it shows, and gets id_tokens."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from wxauth.errors import (
    InsufficientScope,
    InvalidRequest,
    LoginTooOld,
    RateLimited,
    ScanForwarded,
    ScanOver,
    ScanTaken,
    ScanTooFar,
    Title,
    WrongAppKind,
)
from wxauth.server.apps.registry import AppsDep
from wxauth.server.clients.clients import origin_of
from wxauth.server.login.login import PROOF_FAILURES
from wxauth.server.login.routes import EXAMPLE_JWT, LoginCode, ProofRequest
from wxauth.server.sessions.devices import describe_device
from wxauth.server.users.callers import Caller, CallerInTurnDep, DeviceDep, PrincipalDep
from wxauth.server.web.bodies import ShownIp
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import Router
from wxauth.server.websites.authorizations import LASTS_SECONDS, Authorizations, PhoneIdTokens
from wxauth.server.websites.authorize import Unanswerable
from wxauth.server.websites.doors import Door
from wxauth.server.websites.oauth_requests import OAuthError, check_parameters
from wxauth.server.websites.scans import Claimed, ScanOpening, Scans

AuthorizationsDep = Annotated[Authorizations, Depends(provide(Authorizations))]
PhoneIdTokensDep = Annotated[PhoneIdTokens, Depends(provide(PhoneIdTokens))]
ScansDep = Annotated[Scans, Depends(provide(Scans))]
router = Router("scans")
id_token_router = Router("me")


class ClaimRequest(BaseModel):
    """What the phone has read: a scene, a link, or a code that the person typed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"scene": "kq0Vf5Zc3n8xYt1bW7uR2A", "entry_scene": 1047}]},
        hide_input_in_errors=True,
    )

    scene: str | None = Field(
        default=None, description="`scene`, `s` or `cq` in the query of `onLoad`, decoded.", repr=False
    )
    url: str | None = Field(default=None, description="`q` in the query of `onLoad`, decoded.", repr=False)
    user_code: str | None = Field(default=None, description="As typed; case and hyphen do not matter.", repr=False)
    scancode_time: float | None = Field(
        default=None, description="`scancode_time` in the query of `onLoad`: when the code was scanned, in seconds."
    )
    entry_scene: int | None = Field(
        default=None, description="How the page was opened: WeChat's number in `wx.getEnterOptionsSync().scene`."
    )
    scanned: str | None = Field(
        default=None, description="`camera` if the page has read the code with `wx.scanCode({onlyFromCamera: true})`."
    )

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if sum(value is not None for value in (self.scene, self.url, self.user_code)) != 1:
            raise ValueError("Must have one of scene, url and user_code")
        return self

    @property
    def opening(self) -> ScanOpening:
        """The body as the argument of `claim`."""
        return ScanOpening(
            scene=self.scene,
            url=self.url,
            user_code=self.user_code,
            scancode_time=self.scancode_time,
            entry_scene=self.entry_scene,
            by_camera=self.scanned == "camera",
        )


class AuthorizationRequest(BaseModel):
    """A site's request, as the parameters of `/v1/authorize`, and a new `wx.login` code as proof of presence."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "login_code": "0a1B2c3D4e5F6g7H8i9J",
                    "client_id": "shop",
                    "redirect_uri": "https://shop.example.com/callback",
                    "response_type": "code",
                    "scope": "openid profile",
                    "state": "af0ifjsldkj",
                    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
                    "code_challenge_method": "S256",
                }
            ]
        },
        hide_input_in_errors=True,
        extra="allow",
    )
    __pydantic_extra__: dict[str, str] = Field(init=False)

    login_code: LoginCode = Field(description="The code of a new `wx.login`. Works once, for five minutes.", repr=False)

    @property
    def parameters(self) -> Mapping[str, str]:
        """The parameters of the site's request."""
        return self.__pydantic_extra__


class AuthorizationAnswer(TypedDict):
    """The URL to open in the web-view."""

    redirect_to: Annotated[
        str,
        Field(
            description="The site's `redirect_uri` with `code`, `state` and `iss`, or with `error`.",
            examples=[
                "https://shop.example.com/callback?code=SplxlOBeZQQYbYS6WxSbIA&state=af0ifjsldkj"
                "&iss=https%3A%2F%2Fauth.example.com"
            ],
        ),
    ]


class PhoneIdTokenRequest(ProofRequest):
    """The client whose id_token a phone gets, and the proof that the person is present."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"client_id": "supabase", "login_code": "0a1B2c3D4e5F6g7H8i9J"}]},
        hide_input_in_errors=True,
    )

    client_id: str = Field(description="A client that was added with `--phone-id-token`.")
    nonce: str | None = Field(
        default=None, max_length=512, description="Is in the id_token unchanged, for back ends that compare it."
    )


class PhoneIdTokenAnswer(TypedDict):
    """An id_token for another back end."""

    id_token: Annotated[str, Field(description="A JWT of OpenID Connect.", examples=[EXAMPLE_JWT])]
    expires_in: Annotated[int, Field(description="Lifetime in seconds.", examples=[300])]


class SiteAnswer(TypedDict):
    """The site that the user is about to log in to."""

    id: Annotated[str, Field(examples=["shop"])]
    title: Annotated[str, Field(examples=["Example Shop"])]
    origin: Annotated[
        str | None, Field(description="The origin of its first redirect URI.", examples=["https://shop.example.com"])
    ]


class BrowserAnswer(TypedDict):
    """The browser that shows the code."""

    device: Annotated[
        str | None,
        Field(description="Operating system and browser, from the User-Agent.", examples=["Windows, Edge 141"]),
    ]
    ip: ShownIp | None


class ClaimedAnswer(TypedDict):
    """A claimed scan, for the person to approve or deny. Unknown values are null."""

    id: Annotated[UUID, Field(examples=["01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"])]
    client: SiteAnswer
    browser: BrowserAnswer | None
    same_network: Annotated[
        bool | None, Field(description="Whether phone and browser are in the same /24 or /56.", examples=[True])
    ]
    typed: Annotated[
        bool,
        Field(
            description="Whether a code was typed. If so, warn the person: somebody else may have dictated it.",
            examples=[False],
        ),
    ]
    sso_ttl: Annotated[
        int | None,
        Field(
            description="How many seconds after the approval this browser may log in to other sites, too. Null: it may "
            "not.",
            examples=[28800],
        ),
    ]
    link: Annotated[
        bool,
        Field(
            description="Whether a link in this phone's browser opened the page. If so, ask whether the person has "
            "just pressed the button there, and show the number of the approval.",
            examples=[False],
        ),
    ]
    created_at: datetime
    expires_at: Annotated[datetime, Field(examples=["2026-11-20T08:03:00Z"])]


class NumberAnswer(TypedDict):
    """The number to show to the person, who types it in the browser."""

    number: Annotated[str, Field(examples=["482913"])]
    expires_in: Annotated[int, Field(description="Seconds.", examples=[120])]


def claimed_answer(claimed: Claimed) -> ClaimedAnswer:
    """The answer for the phone that has claimed a scan."""
    scan = claimed.scan
    browser: BrowserAnswer | None = None
    if scan.is_page or scan.browser_ip is not None:
        browser = {"device": describe_device(scan.browser_user_agent), "ip": scan.browser_ip}
    uris = scan.redirect_uris
    return {
        "id": scan.id,
        "client": {"id": scan.client_id, "title": scan.title, "origin": origin_of(uris[0]) if uris else None},
        "browser": browser,
        "same_network": scan.same_network,
        "typed": claimed.door is Door.TYPED,
        "link": claimed.door is Door.LINK,
        "sso_ttl": claimed.sso_ttl,
        "created_at": scan.created_at,
        "expires_at": scan.scan_ends_at,
    }


async def scanning_phone_of(caller: CallerInTurnDep, principal: PrincipalDep, apps: AppsDep) -> Caller:
    """The user behind the request's access token, in a session of a mini-program: only that one is a phone that scans.

    Raises: InsufficientScope, also in a session of a mobile app.
    """
    if apps.kind_of(principal.app_id) not in ("mini_program", None):  # None: an app that has been removed
        raise InsufficientScope("this is for a login in the mini-program: an app's session does not open it")
    return caller


PhoneDep = Annotated[Caller, Depends(scanning_phone_of)]
"""The user behind the request's access token, who is in the mini-program and has a turn."""


@router.post(
    "/v1/me/scans",
    summary=Title("Claim a scanned code", "认领扫到的码"),
    failures=[ScanOver, ScanForwarded, ScanTooFar, LoginTooOld, ScanTaken, RateLimited],
)
async def claim_scan(caller: PhoneDep, body: ClaimRequest, scans: ScansDep, device: DeviceDep) -> ClaimedAnswer:
    """Claim a code. The answer names the site to which the person would log in.

    Show all of the answer, and make "refuse" as easy to reach as "log in". The first user to claim a code holds it for
    a minute, or until the decision. Only the session that holds the claim may decide. Another session of the same user
    takes over the claim. The console's code requires an administrator who has logged in within `ADMIN_FRESH_LOGIN`.
    """
    return claimed_answer(await scans.claim(caller, body.opening, ip=device.ip))


@router.post(
    "/v1/me/scans/{scan_id}/approve",
    summary=Title("Approve a login", "登录该网站"),
    response_model=NumberAnswer,
    responses={204: {"description": "Approved: there is no number to show"}},
    failures=[*PROOF_FAILURES, ScanOver],
)
async def approve_scan(
    caller: PhoneDep, scan_id: UUID, body: ProofRequest, scans: ScansDep, device: DeviceDep
) -> NumberAnswer | None:
    """The person approves: the site gets a session. Idempotent: 204 again until the code would have expired.

    After a link (`"link": true`), the answer is a number, which the person types in the browser before the site gets a
    session. The same `login_code` gets the same number again.

    `login_code` proves that the person holds the phone, because an access token may have been stolen. It must belong to
    the session's identity. The session also gets the new `session_key`.
    """
    shown = await scans.approve(caller, scan_id, body.login_code, ip=device.ip)
    return None if shown is None else {"number": shown.number, "expires_in": shown.expires_in}


@router.post("/v1/me/scans/{scan_id}/deny", summary=Title("Deny a login", "拒绝该网站"), failures=[ScanOver])
async def deny_scan(caller: PhoneDep, scan_id: UUID, scans: ScansDep, device: DeviceDep) -> None:
    """The person denies the login: the site gets nothing."""
    await scans.deny(caller, scan_id, ip=device.ip)


@router.post(
    "/v1/me/authorizations",
    summary=Title("Log in to a site shown in the mini-program", "登录小程序内打开的网站"),
    failures=PROOF_FAILURES,
)
async def authorize_site(
    caller: PhoneDep, body: AuthorizationRequest, authorizations: AuthorizationsDep, device: DeviceDep
) -> AuthorizationAnswer:
    """Answer the request that a site in a web-view has made to `/v1/authorize`. Open `redirect_to` in a web-view.

    The body has the parameters of that request, as strings, and `login_code`: as for an approval, an access token alone
    opens no session. An error that concerns the site is in `redirect_to`, as `error`. `login_required` means that the
    site requires a newer login: log in again, then repeat the request.
    """
    try:
        parameters = check_parameters(list(body.parameters.items()))
        url = await authorizations.answer(caller, body.login_code, parameters, device=device)
    except OAuthError as exc:
        raise InvalidRequest.of("body", exc.description) from None
    except Unanswerable as exc:
        raise InvalidRequest.of(exc.mistake, "must be one that the site was added with") from None
    return {"redirect_to": url}


@id_token_router.post(
    "/v1/me/id-token",
    summary=Title("Get an id_token for another back end", "获取用于其他后端的 id_token"),
    failures=[*PROOF_FAILURES, WrongAppKind],
)
async def make_id_token(
    caller: CallerInTurnDep, body: PhoneIdTokenRequest, id_tokens: PhoneIdTokensDep, device: DeviceDep
) -> PhoneIdTokenAnswer:
    """Get an id_token of a client that was added with `--phone-id-token`, such as Supabase, to log in there.

    `login_code` proves that the person holds the phone, because an access token may have been stolen. It must belong to
    the session's identity. The id_token names no session, and opens none here: it is no `id_token_hint`.
    """
    token = await id_tokens.issue(caller, body.client_id, body.login_code, body.nonce or None, ip=device.ip)
    return {"id_token": token, "expires_in": LASTS_SECONDS}
