"""The Chinese OpenAPI document: its description and the operations' summaries are translated."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

from starlette.routing import BaseRoute

from wxauth.server.web.direct import DirectRoute

DESCRIPTION: Final = """
微信小程序登录：提交 `wx.login` 的 code，得到令牌；之后以 `Authorization: Bearer` 携带。

失败时返回 `application/problem+json`（RFC 9457）：程序看 `code`，提示用户用 `title`。
"""


def in_chinese(document: Mapping[str, Any], routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """A copy of an OpenAPI document with description and summaries in Chinese."""
    translated = deepcopy(dict(document))
    translated["info"]["description"] = DESCRIPTION
    for route in routes:
        if isinstance(route, DirectRoute) and route.include_in_schema and route.title is not None:
            for method in route.methods or ():
                translated["paths"][route.path_format][method.lower()]["summary"] = route.title.zh
    return translated
