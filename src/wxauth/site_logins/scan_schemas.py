"""The bodies of the phone's requests about a scan, and their responses."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, StrictFloat, StrictInt, model_validator

from wxauth.site_logins.targets import ResourceAnswer
from wxauth.web.schemas import ShownIp, body_like


def _seconds_in(given: object) -> object:
    """Return the number in a string, because `onLoad` gives all values as strings. Return any other value unchanged."""
    return float(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given


class ClaimRequest(BaseModel):
    """The input of the phone, either a scene, a link, or a code that the user typed."""

    model_config = body_like({"scene": "kq0Vf5Zc3n8xYt1bW7uR2A", "entry_scene": 1047})

    scene: str | None = Field(
        default=None, description="`scene`, `s` or `cq` in the query of `onLoad`, decoded.", repr=False
    )
    url: str | None = Field(default=None, description="`q` in the query of `onLoad`, decoded.", repr=False)
    user_code: str | None = Field(
        default=None, description="The login code as typed. Upper and lower case and hyphens don't matter.", repr=False
    )
    scancode_time: Annotated[StrictFloat | None, BeforeValidator(_seconds_in)] = Field(
        default=None, description="`scancode_time` in the query of `onLoad`: when the code was scanned, in seconds."
    )
    entry_scene: StrictInt | None = Field(
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
    def by_camera(self) -> bool:
        """Whether the mini-program has read the code with the camera, and not from a stored picture."""
        return self.scanned == "camera"


class SiteAnswer(BaseModel):
    """The site that the user is about to log in to."""

    id: str = Field(examples=["shop"])
    title: str = Field(examples=["Example Shop"])
    logo: str | None = Field(
        default=None,
        exclude_if=lambda logo: logo is None,
        description="The client's picture, as a `data:` URL. Absent if there is none.",
    )
    origin: str | None = Field(description="As the login page shows it.", examples=["https://shop.example.com"])
    host: str | None = Field(
        description="Of a client that nobody has registered: show it larger than the title, which the client has given "
        "itself. Null for a registered site."
    )
    local: bool = Field(
        description="Whether a program on this computer gets the code. If so, say that it only calls itself by the "
        "title.",
        examples=[False],
    )


class BrowserAnswer(BaseModel):
    """The browser that shows the code."""

    device: str | None = Field(
        description="Operating system and browser, from the User-Agent.", examples=["Windows, Edge 141"]
    )
    ip: ShownIp | None


class ClaimedAnswer(BaseModel):
    """A claimed scan, for the user to approve or deny. Unknown values are null."""

    id: UUID = Field(examples=["01933c5e-8f1c-7a55-8c3d-6b0e9f2d4a71"])
    client: SiteAnswer
    resource: ResourceAnswer | None = Field(
        description="What the client may do after the approval, and where: show all of it, each scope on a line. Null: "
        "log in."
    )
    browser: BrowserAnswer | None
    same_network: bool | None = Field(
        description="Whether the phone and the browser are in the same /24 or /56 network.", examples=[True]
    )
    typed: bool = Field(
        description="Whether the login code was typed. If so, warn the user, because someone else might have "
        "dictated it.",
        examples=[False],
    )
    sso_ttl: int | None = Field(
        description="For how many seconds after the approval this browser can also log in to other sites. "
        "Null: it can't.",
        examples=[28800],
    )
    link: bool = Field(
        description="Whether a link in this phone's browser opened the page. If so, ask whether the person has "
        "just pressed the button there, and show the number of the approval.",
        examples=[False],
    )
    created_at: datetime
    expires_at: datetime = Field(examples=["2026-11-20T08:03:00Z"])


class NumberAnswer(BaseModel):
    """The number to show to the user, who types it in the browser."""

    number: str = Field(examples=["482913"], repr=False)
    expires_in: int = Field(description="Seconds.", examples=[120])
