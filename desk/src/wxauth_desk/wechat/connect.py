"""WeChat's own pages for browsers (`/connect/…`), which ask the user whether to log in to a site.

The pages behave as WeChat's documentation for service accounts and for website apps describes.
"""

import re
from collections.abc import Mapping
from enum import IntEnum
from html import escape
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from wxauth_desk.wechat.controls import APP_KINDS, CodeRequest, Visitor
from wxauth_desk.wechat.people import is_person_name
from wxauth_desk.wechat.simulator import Simulator

REPEAT_HEADER: Final = "X-Comes-Twice"  # the seconds after which the desk's browsers follow a redirect a second time
PERSON_HEADER: Final = "X-Desk-Person"  # the person who uses the browser, percent-encoded

_ON_COMPUTERS: Final = "qrconnect"  # the other page opens only in WeChat
_KINDS: Final = {"oauth2/authorize": "official_account", _ON_COMPUTERS: "website"}  # of apps, by page
_SCOPES: Final = {"official_account": ("snsapi_base", "snsapi_userinfo"), "website": ("snsapi_login",)}
_PARAMETER_ORDER: Final = ("appid", "redirect_uri", "response_type", "scope", "state", "connect_redirect")
_STATE: Final = re.compile("[a-zA-Z0-9]{0,128}")
# The keys are values of `Visitor.snapshot`, and the values are those of `CodeRequest.snapshot`.
_SNAPSHOTS_OF_CODES: Final = {None: None, "on": "shown", "hidden_once": "hidden", "false_alarm": "false_alarm"}


class _Error(IntEnum):
    """The error numbers that WeChat's pages show."""

    OTHER_DOMAIN = 10003
    SCOPE_OF_ANOTHER_KIND = 10005
    WRONG_SCOPE = 10010  # also for a wrong `response_type`, unknown parameters, and parameters in the wrong order
    WRONG_REDIRECT_URI = 10011
    WRONG_APP_ID = 10012  # in the simulated WeChat, also for an unknown page
    WRONG_STATE = 10013
    APP_OF_ANOTHER_KIND = 10016


_ERROR_TEXTS: Final = {
    _Error.OTHER_DOMAIN: "redirect_uri 域名与后台配置不一致",
    _Error.SCOPE_OF_ANOTHER_KIND: "该公众号没有这个 scope 的权限",
    _Error.WRONG_SCOPE: "Scope 参数错误或没有 Scope 权限",
    _Error.WRONG_REDIRECT_URI: "redirect_uri 参数错误",
    _Error.WRONG_APP_ID: "appid 参数错误",
    _Error.WRONG_STATE: "state 参数错误",
    _Error.APP_OF_ANOTHER_KIND: "不支持微信开放平台的 AppID，请使用公众号 AppID",
}


def connect_routes(wechat: Simulator) -> list[Route]:
    """Return the routes of the pages, and of the endpoint that receives the user's decision."""

    def visitor_of(person: str, app_id: str) -> Visitor | None:
        if not is_person_name(person):
            return None
        return wechat.visitors.get((person, app_id)) or Visitor(person=person, app_id=app_id)

    async def ask(request: Request) -> Response:
        path, query = request.path_params["path"], request.url.query
        if (error := _error_in(wechat, path, query)) is not None:
            return _error_page(error)
        is_for_wechats_browser = path != _ON_COMPUTERS
        if is_for_wechats_browser and not _is_wechats_browser(request):
            return _page("<h1>请在微信客户端打开链接</h1>", status=HTTPStatus.BAD_REQUEST)
        parameters = dict(parse_qsl(query))
        person = unquote(request.headers.get(PERSON_HEADER, ""))
        visitor = visitor_of(person, parameters["appid"])
        # In its own browser, WeChat skips the question if the user follows the account, or if the site requests only
        # the openid.
        if visitor is not None and is_for_wechats_browser and (visitor.follows or parameters["scope"] == "snsapi_base"):
            return _redirect_with_code(wechat, visitor, parameters)
        return _page(_question(path, parameters, query, person))

    async def answer(request: Request) -> Response:
        # The form contains the parameters of the page that asks, and two more fields.
        parameters = dict(request.query_params)
        person, decision = parameters.pop("person", ""), parameters.pop("answer", "")
        if (error := _error_in(wechat, request.path_params["path"], urlencode(parameters))) is not None:
            return _error_page(error)
        visitor = visitor_of(person, parameters["appid"])
        if decision != "allow":
            if visitor is not None and visitor.refusal == "returns":
                return _redirect(parameters, code=None)
            return _page("<p>已拒绝。微信不会返回网站。</p>")  # the real WeChat does not redirect the browser either
        if visitor is None:
            return _page("<p>person: must be a plain name</p>", status=HTTPStatus.UNPROCESSABLE_ENTITY)
        return _redirect_with_code(wechat, visitor, parameters)

    return [
        Route("/connect/{path:path}/answer", answer),
        Route("/connect/{path:path}", ask),
    ]


def _is_wechats_browser(request: Request) -> bool:
    user_agent = request.headers.get("user-agent", "")
    return "MicroMessenger" in user_agent and "wxwork" not in user_agent  # WeCom's user agent names WeChat, too


def _error_in(wechat: Simulator, path: str, query: str) -> _Error | None:
    pairs = parse_qsl(query, keep_blank_values=True)
    parameters = dict(pairs)
    app_id = parameters.get("appid", "")
    kind = _KINDS.get(path)
    if kind is None or app_id not in APP_KINDS:
        return _Error.WRONG_APP_ID
    if APP_KINDS[app_id] != kind:
        return _Error.APP_OF_ANOTHER_KIND
    # WeChat requires this order of the parameters, and allows no other parameters.
    names = [name for name, _value in pairs]
    is_in_order = names == [name for name in _PARAMETER_ORDER if name in names]
    if not is_in_order or parameters.get("response_type") != "code":
        return _Error.WRONG_SCOPE
    scope = parameters.get("scope", "")
    if scope not in _SCOPES[kind]:
        is_known = any(scope in scopes for scopes in _SCOPES.values())
        return _Error.SCOPE_OF_ANOTHER_KIND if is_known else _Error.WRONG_SCOPE
    if not _STATE.fullmatch(parameters.get("state", "")):
        return _Error.WRONG_STATE
    url = urlsplit(parameters.get("redirect_uri", ""))
    if url.scheme not in ("http", "https") or not url.hostname:
        return _Error.WRONG_REDIRECT_URI
    return None if url.hostname in wechat.account(app_id).callback_domains else _Error.OTHER_DOMAIN


def _question(path: str, parameters: Mapping[str, str], query: str, person: str) -> str:
    path_of_answer = f"/connect/{path}/answer"
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in parameters.items()
    )
    links = ""
    if person:
        # The desk shows links as buttons, but no form that sends a GET request. Tests follow the links, too.
        for answer, text in (("allow", f"允许 {person}"), ("refuse", "拒绝")):
            target = f"{path_of_answer}?{query}&{urlencode({'person': person, 'answer': answer})}"
            links += f'<a href="{escape(target)}">{escape(text)}</a> '
    return f"""<h1>微信登录（模拟）</h1><p>{escape(parameters["appid"])}</p>
<form method="get" action="{path_of_answer}">{fields}
<label>person <input name="person" value="{escape(person or "alice")}"></label>
<button name="answer" value="allow">允许</button> <button name="answer" value="refuse">拒绝</button></form>
{links}"""


def _redirect_with_code(wechat: Simulator, visitor: Visitor, parameters: Mapping[str, str]) -> Response:
    code_request = {
        "person": visitor.person,
        "app_id": visitor.app_id,
        "has_unionid": visitor.is_bound,
        "scope": parameters["scope"],
        "snapshot": _SNAPSHOTS_OF_CODES[visitor.snapshot],
    }
    if visitor.snapshot == "hidden_once":
        visitor.snapshot = "on"
    code = wechat.make_code(CodeRequest.model_validate(code_request))
    response = _redirect(parameters, code=code)
    if visitor.comes_twice is not None:
        response.headers[REPEAT_HEADER] = str(visitor.comes_twice)
    return response


def _redirect(parameters: Mapping[str, str], *, code: str | None) -> Response:
    query = {} if code is None else {"code": code}
    if "state" in parameters:
        query["state"] = parameters["state"]
    uri = parameters["redirect_uri"]
    separator = "&" if "?" in uri else "?"
    return RedirectResponse(f"{uri}{separator}{urlencode(query)}", HTTPStatus.FOUND)


def _error_page(error: _Error) -> Response:
    return _page(f"<h1>{error}</h1><p>{_ERROR_TEXTS[error]}</p>", status=HTTPStatus.BAD_REQUEST)


def _page(body: str, *, status: int = HTTPStatus.OK) -> Response:
    html = (
        f'<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>微信（模拟）</title><body><main>{body}</main>'
    )
    return HTMLResponse(html, status, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
