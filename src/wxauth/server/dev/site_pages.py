"""The example websites, and their pages in English and Chinese."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from pydantic_core import to_json
from starlette.responses import HTMLResponse

from wxauth.errors import Title
from wxauth.problems import Language


@dataclass(frozen=True, slots=True)
class Site:
    """One of the two websites."""

    name: str
    """The client_id. It is a public client, which `wxauth dev` adds."""
    title: Title
    path: str
    """Where it is on the address of both, without the slash at the end."""
    scopes: tuple[str, ...]

    @property
    def redirect_uri(self) -> str:
        """Any port is allowed (RFC 8252, section 7.3)."""
        return f"http://127.0.0.1{self.path}/callback"

    @property
    def logout_uri(self) -> str:
        """Where the browser returns after a sign-out."""
        return f"http://127.0.0.1{self.path}/"

    @property
    def backchannel_logout_path(self) -> str:
        """Where the site is told of sessions that have ended."""
        return f"{self.path}/backchannel-logout"


SHOP: Final = Site("wxauth-example", Title("Example Shop", "示例商城"), "", ("openid", "profile", "phone"))
ADMIN: Final = Site("wxauth-example-admin", Title("Shop Admin", "商城后台"), "/admin", ("openid", "profile", "roles"))
SITES: Final = (SHOP, ADMIN)
TAGS: Final[Mapping[Language, str]] = {"en": "en", "zh": "zh-CN"}

_TEXTS: Final = {
    "log_in": Title("Log in with WeChat", "微信扫码登录"),
    "log_out": Title("Log out", "退出登录"),
    "logged_in": Title("Logged in", "已登录"),
    "not_logged_in": Title("Not logged in", "未登录"),
    "nameless": Title("WeChat user", "微信用户"),
    "back": Title("Back", "返回"),
    "shop": Title("Good things for every day", "日常好物，用心挑选"),
    "admin": Title("Today", "今日概况"),
    "closed": Title(
        "Orders and figures are shown after a login. If you are logged in to the shop, no scan is needed.",
        "登录后可查看订单与经营数据。如已登录商城，无需再扫码。",
    ),
    "told": Title(
        "Your login here was ended elsewhere, and wxauth has told this site.",
        "您在此处的登录已在别处结束，wxauth 已通知本站。",
    ),
    "steps": Title("Two sites, one login", "两个网站，一次登录"),
    "step_1": Title("Log in to the shop: scan its code with the phone.", "登录商城：用手机扫码。"),
    "step_2": Title("Open the admin: “Continue as …”, without the phone.", "打开后台：以同一身份继续，无需再用手机。"),
    "step_3": Title("Log out of one: the other follows within two seconds.", "退出其中一个：另一个在两秒内随之退出。"),
    "claims": Title("What wxauth has told this site", "wxauth 告诉本站的内容"),
    "order": Title("Order", "订单"),
    "item": Title("Item", "商品"),
    "amount": Title("Amount", "金额"),
}
_GOODS: Final = (
    ("茶", Title("Longjing tea, 50 g", "龙井茶 50 克"), 68),
    ("杯", Title("Porcelain cup", "白瓷杯"), 39),
    ("伞", Title("Paper umbrella", "油纸伞"), 128),
    ("灯", Title("Reading lamp", "阅读灯"), 199),
)
_FIGURES: Final = (
    (Title("Orders", "订单"), "128"),
    (Title("Revenue", "销售额"), "¥9,364"),
    (Title("Visitors", "访客"), "1,702"),
)
_PAGE: Final = """<!doctype html>
<html lang="{tag}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/site.css">
<title>{title}</title>
<body class="{kind}">
<header><strong>{title}</strong><nav>{nav}</nav></header>
<main>
{main}
</main>
{script}</html>
"""
# A page that stays open follows a logout elsewhere.
_SCRIPT: Final = """<script>
const look = async () => (await (await fetch('state')).json()) || location.reload()
setInterval(() => look().catch(() => {}), 1000)
</script>
"""


def page(
    site: Site,
    other: Site,
    language: Language,
    claims: Mapping[str, Any] | None,
    *,
    was_told: bool = False,
    error: str | None = None,
) -> HTMLResponse:
    """The home page of a site, with a link to the other one.

    Args:
        site: Whose page it is.
        other: The other site.
        language: The language of the page.
        claims: Those of the id_token; None if nobody has logged in.
        was_told: Whether the session was ended by wxauth.
        error: Why the login has failed.
    """
    texts = {name: escape(getattr(text, language)) for name, text in _TEXTS.items()}
    tag, name_of_other = ("en", "English") if language == "zh" else ("zh-CN", "中文")
    nav = [
        f'<a href="{other.path}/">{escape(getattr(other.title, language))}</a>',
        f'<a href="{site.path}/?lang={tag}" lang="{tag}">{name_of_other}</a>',
    ]
    if claims is None:
        who = f'<p><a class="button" href="{site.path}/login">{texts["log_in"]}</a></p>'
    else:
        name = claims.get("name") or getattr(_TEXTS["nameless"], language)
        who = f'<p class="who">{texts["logged_in"]} · {escape(name)}</p>'
        nav.append(f'<a href="{site.path}/logout">{texts["log_out"]}</a>')
    notice = texts["told"] if was_told else ""
    if error is not None:
        notice = f"{texts['not_logged_in']}: {escape(error)}"
        who = f'<p><a class="button" href="{site.path}/">{texts["back"]}</a></p>'
    steps = "".join(f"<li>{texts[step]}</li>" for step in ("step_1", "step_2", "step_3"))
    parts = [
        f"<h1>{texts['shop' if site is SHOP else 'admin']}</h1>",
        f'<p class="notice" role="status">{notice}</p>' if notice else "",
        who,
        _goods(language) if site is SHOP else _figures(texts, language) if claims else f"<p>{texts['closed']}</p>",
        f"<section><h2>{texts['steps']}</h2><ol>{steps}</ol></section>",
    ]
    if claims is not None:
        shown = escape(to_json(claims, indent=2).decode())
        parts.append(f"<details><summary>{texts['claims']}</summary><pre>{shown}</pre></details>")
    html = _PAGE.format(
        tag=TAGS[language],
        title=escape(getattr(site.title, language)),
        kind="shop" if site is SHOP else "admin",
        nav=" ".join(nav),
        main="\n".join(part for part in parts if part),
        script="" if claims is None else _SCRIPT,
    )
    return HTMLResponse(html, headers={"Cache-Control": "no-store", "Vary": "Accept-Language, Cookie"})


def _goods(language: Language) -> str:
    each = (
        f'<li><b aria-hidden="true">{picture}</b>{escape(getattr(title, language))}<span>¥{price}</span></li>'
        for picture, title, price in _GOODS
    )
    return f'<ul class="goods">{"".join(each)}</ul>'


def _figures(texts: Mapping[str, str], language: Language) -> str:
    figures = (f"<li>{escape(getattr(title, language))}<b>{figure}</b></li>" for title, figure in _FIGURES)
    orders = (
        f"<tr><td>{1042 - number}</td><td>{escape(getattr(title, language))}</td><td>¥{price}</td></tr>"
        for number, (_, title, price) in enumerate(_GOODS)
    )
    head = "".join(f"<th>{texts[name]}</th>" for name in ("order", "item", "amount"))
    return f'<ul class="figures">{"".join(figures)}</ul><table><tr>{head}</tr>{"".join(orders)}</table>'
