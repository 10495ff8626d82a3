"""Calls to WeChat's APIs, as the simulated WeChat receives them, and the responses to these calls."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from pydantic_core import from_json, to_json
from starlette.responses import Response

from wxauth_desk.wechat.controls import ENDPOINTS, Api
from wxauth_desk.wechat.errcodes import Errcode

_ERRMSGS: Final = dict(  # WeChat's own errmsgs, by errcode
    line.split(" ", 1) for line in Path(__file__).with_name("errmsgs.txt").read_text("utf-8").splitlines()
)
# In the errmsgs of WeChat's APIs for logins, a comma precedes the `rid`.
_LOGIN_PATH_PREFIX: Final = "/sns/"
_RENEWAL_ADVICE: Final = (  # before the `rid` in the errmsg for errcode 40001, except from the APIs for logins
    ", could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"
)


@dataclass(frozen=True, slots=True)
class CodePicture:
    content: bytes
    content_type: Literal["image/jpeg", "image/png"]


Answer = dict[str, Any] | CodePicture


@dataclass(frozen=True, slots=True)
class Call:
    api: Api
    # The id in a call with a secret, even if no app has this id. For a call with an access token of an app, the id of
    # this app. For any other call, None.
    app_id: str | None
    query: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object. An empty body, or one that is not a JSON object, refuses the call."""
        require(self.body, Errcode.EMPTY_BODY)
        with suppress(ValueError):
            values = from_json(self.body)
            if isinstance(values, dict):
                return values
        raise CallRefused(Errcode.WRONG_BODY)

    @property
    def id_and_secret(self) -> tuple[object, object]:
        """The app's id and secret in the call, which can be values of any type; None for a missing value."""
        if self.api == "stable_token":
            return self.json.get("appid"), self.json.get("secret")
        if self.api == "clear_quota":
            # WeChat's documentation describes a form, but its example contains a query. WxJava sends a query, too, and
            # other clients send JSON. The form takes precedence over JSON, and JSON over the query.
            fields = dict(self.query)
            with suppress(CallRefused):
                fields |= self.json
            fields |= parse_qsl(self.body.decode(errors="replace"))
            return fields.get("appid"), fields.get("appsecret")
        return self.query.get("appid"), self.query.get("secret")


def ok(**values: Any) -> dict[str, Any]:
    """Return the response to a call that succeeded, with these fields."""
    return {"errcode": 0, "errmsg": "ok", **values}


class CallRefused(Exception):
    """The error for a call that the simulated WeChat refuses. `rid_get` finds the call by its `rid`."""

    def __init__(self, errcode: int) -> None:
        self.errcode = errcode
        self.rid = new_rid()

    def answer(self, api: Api = "") -> dict[str, Any]:
        """Return the body of WeChat's response for this refusal. `api` is empty if the call was for an unknown path."""
        errmsg = _ERRMSGS.get(str(self.errcode), "error")
        if api in ENDPOINTS and ENDPOINTS[api].path.startswith(_LOGIN_PATH_PREFIX):
            errmsg += ","
        elif self.errcode == Errcode.WRONG_ACCESS_TOKEN:
            errmsg += _RENEWAL_ADVICE
        return {"errcode": self.errcode, "errmsg": f"{errmsg} rid: {self.rid}"}


def new_rid() -> str:
    """Return a new id, in WeChat's form, for a refused call or for a content check."""
    return "-".join(secrets.token_hex(4) for _ in range(3))


def require(condition: object, errcode: int) -> None:
    """Refuse the call with this errcode if the condition is not met."""
    if not condition:
        raise CallRefused(errcode)


def text_in(values: Mapping[str, Any], name: str) -> str:
    """Return the string with this name in the JSON of a call; empty if it is missing. Refuse any other value."""
    value = values.get(name, "")
    if not isinstance(value, str):
        raise CallRefused(Errcode.WRONG_BODY)
    return value


def json_response(answer: dict[str, Any], api: Api) -> Response:
    """Return a JSON response of an API, with the Content-Type that WeChat uses for this API."""
    media_type = "application/json; encoding=utf-8" if api == "getwxacodeunlimit" else "text/plain"
    return Response(to_json(answer), media_type=media_type)
