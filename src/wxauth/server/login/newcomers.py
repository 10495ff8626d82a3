"""The interface of whoever decides who may sign up. `wxauth.server.sign_up` implements it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from wxauth.server.core.settings import App
from wxauth.server.wechat.client import WeChatIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """What a new user has from the start, besides what WeChat and the settings say."""

    external_id: str | None = None
    """Left out if another user has it, or had it."""
    roles: Sequence[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    nickname: str | None = None
    """Only if the request has none."""
    is_unasked: bool = False
    """Whether the user comes in without an answer of the operator's service."""


class Newcomers(Protocol):
    """Decides who may sign up."""

    async def welcome(self, app: App, identity: WeChatIdentity, *, ip: str | None) -> Welcome:
        """Ask about somebody who would become a new user. Raises: SignUpRefused, SignUpUnavailable."""
