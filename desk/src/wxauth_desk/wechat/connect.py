"""WeChat's own pages for browsers (`/connect/…`), which ask the user, and redirect the browser to the site with a code.

The steps of such a page are those of WeChat's documentation for service accounts and for website apps.
"""

import re
from collections.abc import Mapping
from html import escape
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from wxauth_desk.wechat.controls import APP_KINDS, CodeRequest, Visitor, is_person_name
from wxauth_desk.wechat.simulator import Simulator

REPEAT_HEADER: Final = "X-Comes-Twice"
"""The response header with the number of seconds after which the desk's browsers follow a redirect a second time."""
PERSON_HEADER: Final = "X-Desk-Person"
"""The request header with the name of the person whose browser it is, percent-encoded."""

_KINDS: Final = {"oauth2/authorize": "official_account", "qrconnect": "website"}
"""The kind of app that each page is for, by path."""
_SCOPES: Final = {"official_account": ("snsapi_base", "snsapi_userinfo"), "website": ("snsapi_login",)}
_PARAMETER_ORDER: Final = ("appid", "redirect_uri", "response_type", "scope", "state", "connect_redirect")
_STATE: Final = re.compile("[a-zA-Z0-9]{0,128}", re.ASCII)
_ERRORS: Final = {
    10003: "redirect_uri 域名与后台配置不一致",
    10005: "该公众号没有这个 scope 的权限",
    10010: "Scope 参数错误或没有 Scope 权限",
    10011: "redirect_uri 参数错误",
    10012: "appid 参数错误",
    10013: "state 参数错误",
    10016: "不支持微信开放平台的 AppID，请使用公众号 AppID",
}
"""The texts of WeChat's pages, by error number."""
_REFUSED_SCOPE: Final = 10010


def connect_routes(wechat: Simulator) -> list[Route]:
    """Return the pages of service accounts and of website apps, and the endpoint for the user's decision."""

    def visitor_of(person: str, app_id: str) -> Visitor:
        return wechat.visitors.get((person, app_id)) or Visitor(person=person, app_id=app_id)

    async def ask(request: Request) -> Response:
        path, query = request.path_params["path"], request.url.query
        if (number := _error_number(wechat, path, query)) is not None:
            return _page(f"<h1>{number}</h1><p>{_ERRORS[number]}</p>", status=400)
        user_agent = request.headers.get("user-agent", "")
        if path != "qrconnect" and ("MicroMessenger" not in user_agent or "wxwork" in user_agent):
            return _page("<h1>请在微信客户端打开链接</h1>", status=400)
        asked = dict(parse_qsl(query))
        person = unquote(request.headers.get(PERSON_HEADER, ""))
        visitor = visitor_of(person, asked["appid"]) if is_person_name(person) else None
        if visitor is not None and path != "qrconnect" and (visitor.follows or asked["scope"] == "snsapi_base"):
            return _redirect_with_code(wechat, visitor, asked)
        return _page(_question(asked, query, person))

    async def answer(request: Request) -> Response:
        asked, person = dict(request.query_params), request.query_params.get("person", "")
        first_query = {name: value for name, value in asked.items() if name not in ("person", "answer")}
        if _error_number(wechat, request.path_params["path"], urlencode(first_query)) is not None:
            return _page(f"<h1>{_REFUSED_SCOPE}</h1>", status=400)
        if request.query_params.get("answer") != "allow":
            if is_person_name(person) and visitor_of(person, asked["appid"]).refusal == "returns":
                return _redirect(asked, {})
            return _page("<p>已拒绝。微信不会返回网站。</p>")  # the real WeChat does not redirect the browser either
        if not is_person_name(person):
            return _page("<p>person: must be a plain name</p>", status=422)
        return _redirect_with_code(wechat, visitor_of(person, asked["appid"]), asked)

    return [
        Route("/connect/{path:path}/answer", answer),
        Route("/connect/{path:path}", ask),
    ]


def _error_number(wechat: Simulator, path: str, query: str) -> int | None:
    """Return the error number that WeChat's page shows for this request; None if the request is accepted."""
    pairs = parse_qsl(query, keep_blank_values=True)
    names, asked = [name for name, _ in pairs], dict(pairs)
    app_id, kind = asked.get("appid", ""), _KINDS.get(path)
    if kind is None or app_id not in APP_KINDS:
        return 10012
    if APP_KINDS[app_id] != kind:
        return 10016
    # WeChat requires this order of the parameters, and allows no others.
    is_in_order = [name for name in _PARAMETER_ORDER if name in names] == names
    if not is_in_order or asked.get("response_type") != "code":
        return _REFUSED_SCOPE
    if (scope := asked.get("scope", "")) not in _SCOPES[kind]:
        return 10005 if any(scope in scopes for scopes in _SCOPES.values()) else _REFUSED_SCOPE
    if not _STATE.fullmatch(asked.get("state", "")):
        return 10013
    url = urlsplit(asked.get("redirect_uri", ""))
    if url.scheme not in ("http", "https") or not url.hostname:
        return 10011
    return None if url.hostname in wechat.account(app_id).callback_domains else 10003


def _question(asked: Mapping[str, str], query: str, person: str) -> str:
    """Return the HTML that asks a person whether to log in. The links repeat `query`, the query of the request.

    The page has a form, and links for a known person, which a test can follow.
    """
    path = "qrconnect" if asked["scope"] == "snsapi_login" else "oauth2/authorize"
    where = f"/connect/{path}/answer"
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in asked.items()
    )
    links = "".join(
        f'<a href="{where}?{escape(query)}&amp;{escape(urlencode({"person": person, "answer": answer}))}">{text}</a> '
        for answer, text in (("allow", f"允许 {escape(person)}"), ("refuse", "拒绝"))
    )
    return f"""<h1>微信登录（模拟）</h1><p>{escape(asked["appid"])}</p>
<form method="get" action="{where}">{fields}
<label>person <input name="person" value="{escape(person or "alice")}"></label>
<button name="answer" value="allow">允许</button> <button name="answer" value="refuse">拒绝</button></form>
{links if person else ""}"""


def _redirect_with_code(wechat: Simulator, visitor: Visitor, asked: Mapping[str, str]) -> Response:
    """Make a code for a visitor, and redirect the browser to the site with the code.

    If the visitor's snapshot is `hidden_once`, set it to `on` for the next visit.
    """
    snapshot_of_code = {None: None, "on": "shown", "hidden_once": "hidden", "false_alarm": "false_alarm"}
    code_request = {
        "person": visitor.person,
        "app_id": visitor.app_id,
        "has_unionid": visitor.is_bound,
        "scope": asked["scope"],
        "snapshot": snapshot_of_code[visitor.snapshot],
    }
    if visitor.snapshot == "hidden_once":
        visitor.snapshot = "on"
    code = wechat.make_code(CodeRequest.model_validate(code_request))
    response = _redirect(asked, {"code": code})
    if visitor.comes_twice is not None:
        response.headers[REPEAT_HEADER] = str(visitor.comes_twice)
    return response


def _redirect(asked: Mapping[str, str], answer: Mapping[str, str]) -> Response:
    """Redirect the browser to the site with these parameters, and with the site's `state`, if it has sent one."""
    state = {"state": asked["state"]} if "state" in asked else {}
    return RedirectResponse(_with_query(asked["redirect_uri"], {**answer, **state}), 302)


def _page(body: str, *, status: int = 200) -> Response:
    """Return a page with this HTML."""
    html = (
        f'<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>微信（模拟）</title><body><main>{body}</main>'
    )
    return HTMLResponse(html, status, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def _with_query(uri: str, parameters: Mapping[str, str]) -> str:
    """Return a URI with these parameters added to its query."""
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(parameters)}"
