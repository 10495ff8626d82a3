"""Request and answer bodies for scans and for websites' tokens."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, NotRequired, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from wxauth.server.clients.clients import origin_of
from wxauth.server.login.bodies import EXAMPLE_JWT, LoginCode, ProofRequest
from wxauth.server.sessions.devices import describe_device
from wxauth.server.web.bodies import EXAMPLE_USER_ID, ShownIp
from wxauth.server.websites.doors import Door
from wxauth.server.websites.scans import Claimed, ScanOpening


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


class DeviceAuthorizationAnswer(TypedDict):
    """The codes to show to the person, and the device code to poll with (RFC 8628, section 3.2)."""

    device_code: Annotated[str, Field(examples=["8Yk3..."])]
    user_code: Annotated[str, Field(examples=["WDJB-MJHT"])]
    verification_uri: Annotated[str, Field(examples=["https://auth.example.com/d"])]
    verification_uri_complete: Annotated[str, Field(examples=["https://auth.example.com/d/kq0Vf5Zc3n8xYt1bW7uR2A"])]
    expires_in: Annotated[int, Field(description="Seconds.", examples=[180])]
    interval: Annotated[int, Field(description="Seconds between two polls.", examples=[2])]
    code_image: Annotated[
        str,
        Field(
            description="The picture to show.",
            examples=["https://auth.example.com/v1/scans/kq0Vf5Zc3n8xYt1bW7uR2A/code"],
        ),
    ]


class WebTokensAnswer(TypedDict):
    """A site's tokens (RFC 6749, section 5.1)."""

    access_token: Annotated[str, Field(examples=[EXAMPLE_JWT])]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Field(description="Seconds.", examples=[900])]
    scope: Annotated[str, Field(examples=["openid profile"])]
    refresh_token: Annotated[str, Field(examples=["wxr_..."])]
    id_token: NotRequired[Annotated[str, Field(examples=["eyJhbGciOiJSUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6IkpXVCJ9..."])]]


class UserinfoAnswer(TypedDict):
    """Claims about a user, as the site's scopes allow (OpenID Connect Core, section 5.1)."""

    sub: Annotated[str, Field(examples=[EXAMPLE_USER_ID])]
    name: NotRequired[Annotated[str, Field(examples=["小明"])]]
    picture: NotRequired[Annotated[str, Field(examples=["https://example.com/avatars/1.png"])]]
    updated_at: NotRequired[Annotated[int, Field(examples=[1795161600])]]
    phone_number: NotRequired[Annotated[str, Field(description="E.164.")]]
    phone_number_verified: NotRequired[bool]
    email: NotRequired[Annotated[str, Field(description="Made up, for products that require one.")]]
    email_verified: NotRequired[bool]
    roles: NotRequired[list[str]]


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
