"""The APIs of the simulated WeChat that make links to mini-programs, and pictures of mini-program codes."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wxauth_desk.wechat.api_calls import Answer, Call, CallRefused, ok, require, text_in
from wxauth_desk.wechat.beijing_time import DAY_SECONDS
from wxauth_desk.wechat.controls import APP_KINDS, AppState
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.pictures import VERSIONS, checked_code_text, draw, read_width
from wxauth_desk.wechat.quotas import Quotas

URL_LINK_HOST: Final = "wxaurl.cn"  # of WeChat's URL Links, which open a mini-program
_PICTURES_A_MINUTE: Final = 5000
_MAX_LINK_DAYS: Final = 30
_MAX_QUERY_LENGTH: Final = 1024


@dataclass
class Links:
    quotas: Quotas
    clock: Callable[[], int]

    def draw_code(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `getwxacodeunlimit` with the picture of a mini-program code."""
        try:
            values = call.json
        except CallRefused:  # this API has its own errcode for a body that is not a JSON object
            raise CallRefused(Errcode.WRONG_SCENE_LENGTH) from None
        text = checked_code_text(values, account)
        self.quotas.count_in_minute(call.api, account.app_id, at_most=_PICTURES_A_MINUTE, errcode=Errcode.USED_UP_QUOTA)
        return draw(text, is_transparent=values.get("is_hyaline") is True, width=read_width(values))

    def make_url_link(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `generate_urllink` with a URL Link."""
        values = call.json
        self._check_link(account, opened=values, lifetime=values)
        return ok(url_link=f"https://{URL_LINK_HOST}/{secrets.token_urlsafe(8)}")

    def make_scheme(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `generatescheme` with a URL Scheme."""
        values = call.json
        opened = values.get("jump_wxa", {})
        require(isinstance(opened, dict), Errcode.WRONG_BODY)
        self._check_link(account, opened=opened, lifetime=values)
        return ok(openlink=f"weixin://dl/business/?t={secrets.token_urlsafe(8)}")

    def _check_link(self, account: AppState, *, opened: Mapping[str, Any], lifetime: Mapping[str, Any]) -> None:
        require(APP_KINDS[account.app_id] == "mini_program", Errcode.NOT_ALLOWED)
        env = opened.get("env_version", "release")
        path = text_in(opened, "path").removeprefix("/")
        require(env in VERSIONS, Errcode.WRONG_VERSION)
        require(env != "release" or account.pages, Errcode.NO_RELEASE)
        require(env != "release" or not path or path in account.pages, Errcode.UNPUBLISHED_PAGE)
        require(len(text_in(opened, "query")) <= _MAX_QUERY_LENGTH, Errcode.WRONG_QUERY)
        require(self._is_allowed_expiry(lifetime), Errcode.WRONG_EXPIRY)

    def _is_allowed_expiry(self, lifetime: Mapping[str, Any]) -> bool:
        match lifetime.get("expire_type", 0):
            case 0:  # at a time, in seconds since the epoch; 0 stands for the latest time allowed
                at, now = lifetime.get("expire_time", 0), self.clock()
                return isinstance(at, int) and (at == 0 or now < at <= now + _MAX_LINK_DAYS * DAY_SECONDS)
            case 1:  # after a number of days
                days = lifetime.get("expire_interval")
                return isinstance(days, int) and 1 <= days <= _MAX_LINK_DAYS
        return False
