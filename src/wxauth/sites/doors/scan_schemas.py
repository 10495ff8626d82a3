"""The bodies of the phone's requests about a scan, and of the responses to these requests."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, StrictFloat, StrictInt, model_validator

from wxauth.sites.targets import ResourceAnswer
from wxauth.web.schemas import ShownIp, body_like


def _number_in(value: object) -> object:
    """Return a number for a string of digits, because `onLoad` gives all values as strings."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return float(value)
    return value


class ClaimRequest(BaseModel):
    """The input of the phone, which is a scene, a link, or a login code that the user typed."""

    model_config = body_like({"scene": "kq0Vf5Zc3n8xYt1bW7uR2A", "entry_scene": 1047})

    scene: str | None = Field(
        default=None, description="The decoded value of `scene`, `s` or `cq` in the query of `onLoad`.", repr=False
    )
    url: str | None = Field(default=None, description="The decoded value of `q` in the query of `onLoad`.", repr=False)
    user_code: str | None = Field(
        default=None, description="The login code as the user typed it. Case and hyphens don't matter.", repr=False
    )
    scancode_time: Annotated[StrictFloat | None, BeforeValidator(_number_in)] = Field(
        default=None,
        allow_inf_nan=False,  # no comparison with NaN is true, so NaN would count as recent
        description="The Unix time, in seconds, of the scan, which is `scancode_time` in the query of `onLoad`.",
    )
    entry_scene: StrictInt | None = Field(
        default=None,
        description="WeChat's number for the way the page was opened, from `wx.getEnterOptionsSync().scene`.",
    )
    scanned: str | None = Field(
        default=None,
        description="`camera` if the page itself has read the code, with `wx.scanCode({onlyFromCamera: true})`.",
    )

    @model_validator(mode="after")
    def _check_has_one_input(self) -> Self:
        if sum(value is not None for value in (self.scene, self.url, self.user_code)) != 1:
            raise ValueError("Must have one of scene, url and user_code")
        return self

    @property
    def is_read_by_camera(self) -> bool:
        """Whether the mini-program itself has read the QR code with the camera, rather than from a stored picture."""
        return self.scanned == "camera"


class SiteAnswer(BaseModel):
    """The site that the user is about to log in to."""

    id: str = Field(examples=["shop"])
    title: str = Field(examples=["Example Shop"])
    logo: str | None = Field(
        default=None,
        exclude_if=lambda logo: logo is None,
        description="The client's logo, as a `data:` URL. Absent if the client has none.",
    )
    origin: str | None = Field(
        description="The site's origin, as the login page shows it. Null if the site has no redirect URI.",
        examples=["https://shop.example.com"],
    )
    host: str | None = Field(
        description="The host of an unregistered client. Show it larger than the title, because the client has chosen "
        "the title itself. Null for a registered site."
    )
    local: bool = Field(
        description="Whether a program on the user's computer gets the authorization code. If so, tell the user that "
        "the program has chosen the title itself.",
        examples=[False],
    )


class BrowserAnswer(BaseModel):
    """The browser that shows the QR code, the link or the login code."""

    device: str | None = Field(
        description="The operating system and the browser, read from the User-Agent.", examples=["Windows, Edge 141"]
    )
    ip: ShownIp | None


class ClaimedAnswer(BaseModel):
    """A claimed scan, for the user to approve or deny. Unknown values are null."""

    id: UUID = Field(examples=["01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"])
    client: SiteAnswer
    resource: ResourceAnswer | None = Field(
        description="The resource that the client gets access to after the approval, with the scopes. Show all of it, "
        "each scope on its own line. Null if the user only logs in to the site."
    )
    browser: BrowserAnswer | None = Field(
        description="The browser that shows the code or the link. If a device shows the code, and has not sent the "
        "browser's address, this is the address from which the device has started the login."
    )
    requested_ip: ShownIp | None = Field(
        description="The address from which a device has started the login. Show it if `browser` has another address, "
        "because that one is only what the device says. Null if wxauth's own page shows the code or the link."
    )
    same_network: bool | None = Field(
        description="Whether the phone and the browser are in the same /24 or /56 network.", examples=[True]
    )
    typed: bool = Field(
        description="Whether the user typed the login code. If so, warn the user, because someone else might have "
        "dictated it.",
        examples=[False],
    )
    sso_ttl: int | None = Field(
        description="The number of seconds after the approval for which this browser can also log in to other sites. "
        "Null if it can't.",
        examples=[28800],
    )
    link: bool = Field(
        description="Whether a link in this phone's browser opened the page. If so, ask whether the user has just "
        "pressed the button in that browser. After the approval, show the number that it returns.",
        examples=[False],
    )
    created_at: datetime = Field(description="When wxauth made the QR code, the login code or the link.")
    expires_at: datetime = Field(
        description="When the user can no longer approve or deny the scan.", examples=["2026-11-20T08:03:00Z"]
    )


class NumberAnswer(BaseModel):
    """The number to show to the user, who types it in the browser."""

    number: str = Field(examples=["482913"], repr=False)
    expires_in: int = Field(description="Lifetime in seconds.", examples=[120])
