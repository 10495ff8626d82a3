"""A call to one of WeChat's APIs, as the simulated WeChat receives the call, and the forms of the response."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import from_json

from wxauth_desk.wechat.calls import CallRefused, require
from wxauth_desk.wechat.controls import Api
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.pictures import CodePicture

Answer = dict[str, Any] | CodePicture
"""The response to a call: a JSON object, or a picture."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call to one of the simulated APIs."""

    api: Api
    app_id: str | None
    """The id of the calling app, which the call names by its id or its access token; None if the app is unknown."""
    query: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises: CallRefused, if the body is empty or is not a JSON object."""
        require(self.body, Errcode.EMPTY_BODY)
        with suppress(ValueError):
            values = from_json(self.body)
            if isinstance(values, dict):
                return values
        raise CallRefused(Errcode.WRONG_BODY)

    @property
    def id_and_secret(self) -> tuple[object, object]:
        """The app's id and secret in the call, which can be values of any type; None for a missing value.

        Raises: CallRefused, if the API requires JSON and the body is not JSON.
        """
        if self.api == "stable_token":
            return self.json.get("appid"), self.json.get("secret")
        if self.api == "clear_quota":
            # WeChat's page describes a form, but its example has a query, as WxJava sends it, and other clients send
            # JSON. If a field comes twice, the form counts before JSON, and JSON before the query.
            fields = dict(self.query)
            with suppress(CallRefused):
                fields |= self.json
            fields |= parse_qsl(self.body.decode(errors="replace"))
            return fields.get("appid"), fields.get("appsecret")
        return self.query.get("appid"), self.query.get("secret")


def ok(**values: Any) -> dict[str, Any]:
    """Return the response to a call that succeeded, with these fields."""
    return {"errcode": 0, "errmsg": "ok", **values}
