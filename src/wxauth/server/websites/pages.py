"""The pages for browsers: plain HTML, a style sheet and a small script, all served by this service."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import RateLimited, StorageUnavailable
from wxauth.problems import Language, preferred_language
from wxauth.server.clients.clients import is_registered, origin_of, origin_shown
from wxauth.server.clients.models import Client
from wxauth.server.core.settings import App
from wxauth.server.core.users import UserFields
from wxauth.server.users.bodies import is_own_picture
from wxauth.server.web.edge import PROBLEM_KEY
from wxauth.server.websites.authorize import (
    AUTHORIZE_PATH,
    PressesUsedUp,
    SiteRequest,
    StartedScan,
    Unanswerable,
    WayBack,
)
from wxauth.server.websites.browser_logins import is_web_view
from wxauth.server.websites.doors import SCAN_LASTS, Door
from wxauth.server.websites.granting import PageState
from wxauth.server.websites.links import TryAgain
from wxauth.server.websites.oauth_requests import LONGEST_REDIRECT, Parameters
from wxauth.server.websites.texts import TEXTS, Texts
from wxauth.server.websites.visits import is_open_on_computers
from wxauth.texts import is_loopback

ASSETS_PATH: Final = "/v1/pages"
SEE_OTHER: Final = 303

_FOLDER: Final = Path(__file__).parent / "page"
_ASSETS: Final = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "post.js": "text/javascript",
    "web-view.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action {form_action}; frame-ancestors {frame_ancestors}"
)
DOOR: Final = "door"
"""A parameter of ours at `/v1/authorize`: `scan` forces the page with the code, if WeChat's bridge did not answer."""
_IN_WECHAT: Final = "MicroMessenger"
_IN_WECOM: Final = "wxwork"
CONFIRMED: Final = "confirmed"
"""The field of the page that asks whether to log out."""
HINT: Final = "id_token_hint"
"""The site's parameter that the page of a person has in its forms: it has their name and number, so none is stored."""
_KEPT_AT_LOG_OUT: Final = ("client_id", "post_logout_redirect_uri", "state", "ui_locales")
VISIT_PAGES: Final = {"snapshot": True, "again": True, "over": True, "done": False}
"""The pages shown after a visit to WeChat's page, each with whether it has a button to try again."""
_ON_A_PHONE: Final = re.compile(r"Mobi|Android|iPhone|iPad")
_WECHAT_ON_A_COMPUTER: Final = re.compile(r"(?:Windows|Mac)Wechat")
_GAP_IN_CHINESE: Final = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")
_NOBODYS_PORTRAIT: Final = (
    '<svg viewBox="0 0 72 72" width="72" height="72" fill="currentColor">'
    '<circle cx="36" cy="28" r="12"/><path d="M12 64a24 18 0 0 1 48 0z"/></svg>'
)
_TAGS: Final = {"en": "en", "zh": "zh-CN"}


class Asset(NamedTuple):
    """A file that the pages load."""

    content: bytes
    media_type: str
    etag: str


@cache
def find_asset(name: str) -> Asset | None:
    """The file of this name that the pages load; None if there is none."""
    if name not in _ASSETS:
        return None
    content = (_FOLDER / name).read_bytes()
    return Asset(content, f"{_ASSETS[name]}; charset=utf-8", etag=f'"{sha256(content).hexdigest()[:32]}"')


def language_of(request: Request, *, ui_locales: str | None = None) -> Language:
    """The language of a page: the one that the site requests, otherwise the one that the browser prefers."""
    for locale in (ui_locales or "").split():
        found = re.match(r"(en|zh)\b", locale.lower().replace("_", "-"))
        if found:
            return "zh" if found[1] == "zh" else "en"
    return preferred_language(request.headers)


def code_page(
    request: Request,
    asked: SiteRequest,
    started: StartedScan,
    parameters: Parameters,
    language: Language,
    *,
    app: App | None,
    link_target: str | None = None,
) -> Response:
    """The page that shows the code and its state. A phone, which cannot scan its own screen, unfolds the code.

    With `link_target`, a button that opens WeChat is first, and after it the field for the number. `app` is the
    mini-program that opens; None if it is unknown.
    """
    texts, root, title = TEXTS[language], _root(request), _login_title(asked, language)
    own_url = f"{root}{AUTHORIZE_PATH}/{started.secret}"
    seconds = int(SCAN_LASTS.total_seconds())
    is_phone = _is_on_a_phone(request.headers.get("user-agent", ""))
    on_a_phone = "_on_a_phone" if is_phone else ""
    states = {state: texts.get(f"{state}{on_a_phone}", texts[state]) for state in PageState}
    picture = f"""<div class="code"><img src="{root}/v1/scans/{started.scene}/code" alt="{escape(texts["picture"])}"
{' loading="lazy"' if is_phone else ""}></div>"""
    typed = _typed_code(started, texts)
    state = f"""<p class="status" role="status">{escape(states[PageState.WAITING].format(seconds=seconds))}</p>
<a class="button renew" href="{root}{escape(_url(parameters))}" hidden>{escape(texts["renew"])}</a>
<noscript>
{_paragraph("", texts["no_script"])}<a class="button second" href="{own_url}/next">{escape(texts["go_on"])}</a>
</noscript>"""
    if not is_phone:
        by_computer = ""
        if is_open_on_computers(asked.client):
            by_computer = f'<a class="button second" href="{own_url}/wechat">{escape(texts["by_computer"])}</a>\n'
        ways = f"""{_with_app(texts, "how", app)}
{picture}
{state}
{by_computer}<p class="quiet">{escape(texts["typed"])}{typed}</p>"""
    else:
        by_code = f'<p class="type-first">{typed}</p>\n{state}'
        other = f"{_paragraph('quiet', texts['with_another_device'])}\n{picture}"
        if link_target:
            ways = f"""{_with_app(texts, "opens", app)}
{_link_forms(own_url, texts)}
{_folded(texts["another_way"], f"{_paragraph('quiet', texts['typed'])}{by_code}<hr>{other}")}"""
        else:
            ways = f"""{_with_app(texts, "type", app)}
{by_code}
{_folded(texts["another_device"], other)}"""
    body = f"""
{_heading(title, asked.client.redirect_uris, asked.redirect_uri)}
{ways}
{_paragraph("warning", texts[f"warning{on_a_phone}"])}
{_footer(own_url, asked, parameters, language, root=root)}"""
    data = {
        "stateUrl": f"{own_url}/state",
        "nextUrl": f"{own_url}/next",
        "texts": states,
    }
    attributes = f' data-state="waiting" data-expires-in="{seconds}" data-page="{escape(to_json(data).decode())}"'
    return _page(
        request,
        title,
        body,
        language,
        attributes=attributes,
        script=f"{root}{ASSETS_PATH}/page.js",
        form_action=_form_action_of_link(asked.redirect_uri, link_target) if link_target else "'none'",
    )


def number_page(request: Request, again: TryAgain, page_id: str, language: Language, *, target: str | None) -> Response:
    """The page after a number that is wrong, or that cannot be right yet: to type it again, or to open WeChat again."""
    texts, page = TEXTS[language], again.page
    own_url = f"{_root(request)}{AUTHORIZE_PATH}/{escape(page_id)}"
    title = _without_gaps(texts["log_in_to"].format(title=page.title))
    body = f"""
{_heading(title, page.redirect_uris, page.redirect_uri)}
<p class="status" role="alert">{escape(texts["number_wrong" if again.is_wrong else "number_missing"])}</p>
{_link_forms(own_url, texts, has_button=target is not None, is_number_first=again.is_wrong)}
{_links(_way_back(own_url, page.title, language))}"""
    return _page(request, title, body, language, form_action=_form_action_of_link(page.redirect_uri, target))


def _link_forms(own_url: str, texts: Texts, *, has_button: bool = True, is_number_first: bool = False) -> str:
    """The button that opens WeChat, and the field for the number that the phone shows then."""
    first, second = '"button"', '"button second"'
    button, send = (second, first) if is_number_first else (first, second)
    opening = (
        f'<form method="post" action="{own_url}/link"><button class={button}>{escape(texts["by_link"])}</button></form>'
    )
    typing = f"""<form class="number" method="post" action="{own_url}/number">
<label for="number">{escape(texts["type_number"])}</label>
<input id="number" name="number" inputmode="numeric" autocomplete="off" pattern="[0-9 ]*" maxlength="12" required>
<button class={send}>{escape(texts["send_number"])}</button>
</form>"""
    forms = [opening, typing] if has_button else [typing]
    return "\n".join(reversed(forms) if is_number_first else forms)


def _form_action_of_link(redirect_uri: str, target: str | None) -> str:
    return " ".join(filter(None, ("'self'", target, _redirect_source(redirect_uri))))


def is_in_phones_browser(request: Request) -> bool:
    """Whether a phone's browser outside WeChat and WeCom shows the page."""
    user_agent = request.headers.get("user-agent", "")
    return _is_on_a_phone(user_agent) and _IN_WECHAT not in user_agent and _IN_WECOM not in user_agent


def _with_app(texts: Texts, name: str, app: App | None) -> str:
    """What to do, with title and picture of the mini-program that opens, as far as the operator gave them."""
    title = None if app is None else app.title
    text = texts[name] if title is None else texts[f"{name}_by_app"].format(app=title)
    picture = f'<img class="logo" src="{app.logo}" width="56" height="56" alt="">\n' if app and app.logo else ""
    return f"{picture}<p>{escape(text)}</p>"


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def _typed_code(started: StartedScan, texts: Texts) -> str:
    return (
        f' <span class="typing"><span class="typed">{started.user_code}</span>'
        f'<button class="copy" type="button" data-copied="{escape(texts["copied"])}" hidden>'
        f"{escape(texts['copy'])}</button></span>"
    )


def is_in_wechat(request: Request) -> bool:
    """Whether WeChat's own browser shows the page, on a phone or a computer. A mini-program or WeCom does not count."""
    user_agent = request.headers.get("user-agent", "")
    return _IN_WECHAT in user_agent and _IN_WECOM not in user_agent and not is_in_web_view(request)


def account_page(
    request: Request, asked: SiteRequest, request_id: str, parameters: Parameters, language: Language
) -> Response:
    """The page with one button. Without a tap on a button first, WeChat would only show a snapshot of the site."""
    title, root = _login_title(asked, language), _root(request)
    own_url = f"{root}{AUTHORIZE_PATH}/{request_id}"
    body = f"""
{_heading(title, asked.client.redirect_uris, asked.redirect_uri)}
<a class="button" href="{own_url}/wechat">{escape(TEXTS[language]["log_in_with_wechat"])}</a>
{_footer(own_url, asked, parameters, language, root=root)}"""
    return _page(request, title, body, language)


def person_page(
    request: Request,
    asked: SiteRequest,
    person: UserFields,
    request_id: str,
    parameters: Parameters,
    language: Language,
    *,
    issuer: str,
) -> Response:
    """The page of a browser with a login: a button to go on to the site as the person it shows."""
    texts, root, title = TEXTS[language], _root(request), _login_title(asked, language)
    own_url = f"{root}{AUTHORIZE_PATH}/{request_id}"
    name = (person.nickname or "").strip()
    go_on = _without_gaps(texts["go_on_as"].format(name=name)) if name else texts["go_on_as_you_are"]
    picture = f'<span class="portrait" aria-hidden="true">{escape(name[:1]) or _NOBODYS_PORTRAIT}</span>'
    if is_own_picture(person.avatar_url, issuer):
        url = escape(f"{root}{person.avatar_url.removeprefix(issuer)}")
        picture = f'<img class="portrait" src="{url}" width="72" height="72" alt="">'
    hint = _hidden({HINT: parameters[HINT]} if HINT in parameters else {})
    body = f"""
{_heading(title, asked.client.redirect_uris, asked.redirect_uri)}
{picture}
<p class="name">{escape(name or texts["no_name"])}</p>
<form method="post" action="{own_url}/continue">{hint}<button class="button">{escape(go_on)}</button></form>
<form method="post" action="{own_url}/another">{hint}<button class="link">{escape(texts["another"])}</button></form>
{_paragraph("warning", texts["not_you"])}
{_footer(own_url, asked, parameters, language, root=root)}"""
    return _page(request, title, body, language, form_action=f"'self' {_redirect_source(asked.redirect_uri)}")


def log_out_page(
    request: Request,
    person: UserFields,
    client: Client | None,
    parameters: Parameters,
    field: str,
    language: Language,
) -> Response:
    """The page that asks whether to end the login of this browser. `field` proves that the answer is the page's."""
    texts, title = TEXTS[language], TEXTS[language]["log_out_title"]
    name = (person.nickname or "").strip() or texts["no_name"]
    kept = {each: parameters[each] for each in _KEPT_AT_LOG_OUT if each in parameters}
    fields = _hidden({**kept, CONFIRMED: field})
    body = f"""
<h1>{escape(title)}</h1>
{_paragraph("", _without_gaps(texts["log_out"].format(name=name)))}
<form method="post" action="{_root(request)}/v1/end_session">{fields}
<button class="button">{escape(texts["log_out_button"])}</button></form>
{_links(_other_language("", kept, language))}"""
    url = kept.get("post_logout_redirect_uri")
    leads_back = client is not None and url is not None and is_registered(url, client.logout_uris)
    allowed = f"'self' {_redirect_source(url)}" if leads_back and url is not None else "'self'"
    return _page(request, title, body, language, form_action=allowed)


def redirect_to(url: str) -> Response:
    """Redirect the browser to a URL, without a referrer."""
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=SEE_OTHER, headers={**headers, "Location": url})


def send_to(request: Request, to: WayBack | str, language: Language) -> Response:
    """Send the browser to a site or a page: by a redirect, or by a page whose form it posts to the site."""
    if isinstance(to, str):
        return redirect_to(f"{request.scope.get('root_path', '')}{to}" if to.startswith("/") else to)
    if not to.is_form:
        return redirect_to(to.url)
    texts = TEXTS[language]
    fields = _hidden(to.answer)
    body = f"""
<h1>{escape(texts["going_back"])}</h1>
<p class="origin">{escape(origin_of(to.redirect_uri) or "")}</p>
<form method="post" action="{escape(to.redirect_uri)}">{fields}
<button class="button">{escape(texts["go_on"])}</button></form>"""
    return _page(
        request,
        texts["going_back"],
        body,
        language,
        script=f"{_root(request)}{ASSETS_PATH}/post.js",
        form_action=_redirect_source(to.redirect_uri),
        frame_ancestors=_site_source(to.redirect_uri),  # a site may ask in a frame of its own, by prompt=none
    )


def _redirect_source(redirect_uri: str) -> str:
    """What `form-action` must allow for a redirect to the site after a form was sent.

    A browser checks all redirects that follow, and the site may redirect on to another of its own hosts.
    """
    source = _site_source(redirect_uri)
    return f"{source} https:" if source.startswith("https:") else source


def _site_source(redirect_uri: str) -> str:
    """The site, as a policy names it."""
    url = urlsplit(redirect_uri)
    if url.scheme == "https":
        return f"https://{url.netloc}"
    return "http:" if url.netloc.startswith("[") else f"http://{url.netloc}"  # a policy cannot name an IPv6 address


def visit_page(request: Request, name: str, language: Language, *, request_id: str) -> Response:
    """The page shown after a visit to WeChat's page, one of `VISIT_PAGES`."""
    texts = TEXTS[language]
    title, body = _message(f"visit_{name}", texts)
    if VISIT_PAGES[name]:
        url = f"{_root(request)}{AUTHORIZE_PATH}/{request_id}/wechat"
        body += f'<a class="button" href="{url}">{escape(texts["try_again"])}</a>'
    return _page(request, title, body, language)


def is_in_web_view(request: Request) -> bool:
    """Whether the page is open in a mini-program's web-view."""
    return is_web_view(request.headers.get("user-agent", ""))


def web_view_page(
    request: Request, asked: SiteRequest, parameters: Parameters, language: Language, *, page: str
) -> Response:
    """The page that makes the surrounding mini-program open its own page, with the site's request."""
    texts, root = TEXTS[language], _root(request)
    # Encoded as encodeURIComponent does, because that is all a mini-program can decode.
    query = urlencode({name: parameters[name] for name in parameters if name != DOOR}, quote_via=quote, safe="!~*'()")
    code_url = f"{root}{_url({**parameters, DOOR: Door.SCAN})}"
    data = {"url": f"/{page}?{query}", "codeUrl": code_url}
    title = _login_title(asked, language)
    body = f"""
{_heading(title, asked.client.redirect_uris, asked.redirect_uri)}
{_paragraph("", texts["in_mini_program"])}
<button class="button open" type="button">{escape(texts["log_in"])}</button>
<noscript><a class="button" href="{escape(code_url)}">{escape(texts["log_in_by_code"])}</a></noscript>"""
    attributes = f' data-page="{escape(to_json(data).decode())}"'
    return _page(request, title, body, language, attributes=attributes, script=f"{root}{ASSETS_PATH}/web-view.js")


def message_page(
    request: Request,
    name: str,
    language: Language,
    *,
    detail: str | None = None,
    about: Sequence[str] = (),
    status: int = 200,
    retry_after: int | None = None,
) -> Response:
    """A page with a message, optionally with a detail and with lines `about` whom or what it is, all as plain text."""
    texts = TEXTS[language]
    title, body = _message(name, texts)
    if detail is not None:
        body += _paragraph("quiet", texts[detail])
    body += "".join(_paragraph("quiet", text) for text in about)
    page = _page(request, title, body, language, status=status)
    if retry_after is not None:
        page.headers["Retry-After"] = str(retry_after)
    return page


def failure_page(request: Request, failure: RateLimited | StorageUnavailable, language: Language) -> Response:
    """The page for a failure, which says whether to try again. The log names the failure."""
    request.scope[PROBLEM_KEY] = failure
    if isinstance(failure, PressesUsedUp):
        return message_page(request, "used_up", language, status=failure.status)
    name = "limited" if isinstance(failure, RateLimited) else "away"
    return message_page(request, name, language, status=failure.status, retry_after=failure.retry_after)


def instructions_page(request: Request, name: str) -> Response:
    """A page that says what to do, for whoever opens its URL: `device` or `link`."""
    language = language_of(request, ui_locales=request.query_params.get("ui_locales"))
    title, body = _message(name, TEXTS[language])
    return _page(request, title, f"{body}\n{_links(_other_language('', {}, language))}", language)


def unanswerable_page(request: Request, refusal: Unanswerable, language: Language) -> Response:
    """The page for a request whose redirect URI cannot be trusted: it names the site, and the redirect URI received."""
    texts, about = TEXTS[language], []
    if refusal.site is not None:
        title, origin = refusal.site.title or refusal.site.name, origin_shown(refusal.site)
        about.append(texts["asking_site"].format(site=title if origin is None else f"{title}, {origin}"))
    if refusal.received is not None:
        about.append(texts["received"].format(received=refusal.received or "—"))
    return message_page(request, "mistake", language, detail=refusal.mistake, about=about, status=400)


def _page(
    request: Request,
    title: str,
    body: str,
    language: Language,
    *,
    attributes: str = "",
    script: str | None = None,
    form_action: str = "'none'",
    frame_ancestors: str = "'none'",
    status: int = 200,
) -> Response:
    module = "" if script is None else f'<script type="module" src="{script}"></script>'
    html = f"""<!doctype html>
<html lang="{_TAGS[language]}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>{escape(title)}</title>
<link rel="icon" href="{_root(request)}{ASSETS_PATH}/icon.svg">
<link rel="stylesheet" href="{_root(request)}{ASSETS_PATH}/page.css">
{module}
</head>
<body><main{attributes}>{body}</main></body>
</html>
"""
    headers = {
        "Cache-Control": "no-store",
        "Content-Language": _TAGS[language],
        "Content-Security-Policy": _POLICY.format(form_action=form_action, frame_ancestors=frame_ancestors),
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Language, User-Agent, Cookie",
    }
    if frame_ancestors == "'none'":
        headers["X-Frame-Options"] = "DENY"
    return Response(html, status_code=status, headers=headers, media_type="text/html")


def _is_on_a_phone(user_agent: str) -> bool:
    # Not as one pattern with a lookahead: for a User-Agent of 64 KiB that repeats WeChat's name, that took 0.4 seconds.
    _, name, rest = user_agent.rpartition(_IN_WECHAT)
    is_wechat_on_a_phone = bool(name) and _WECHAT_ON_A_COMPUTER.search(rest) is None
    return is_wechat_on_a_phone or _ON_A_PHONE.search(user_agent) is not None


def _login_title(asked: SiteRequest, language: Language) -> str:
    return _without_gaps(TEXTS[language]["log_in_to"].format(title=asked.client.title))


def _without_gaps(text: str) -> str:
    """The text without the spaces around a name, where Chinese has none."""
    return _GAP_IN_CHINESE.sub("", text)


def _footer(own_url: str, asked: SiteRequest, parameters: Parameters, language: Language, *, root: str) -> str:
    """The way back to the site without a login, and the same page in the other language."""
    back = _way_back(own_url, asked.client.title, language)
    return _links(back, _other_language(f"{root}{AUTHORIZE_PATH}", parameters, language))


def _links(*links: str) -> str:
    return f'<p class="links">{" ".join(filter(None, links))}</p>' if any(links) else ""


def _way_back(own_url: str, title: str | None, language: Language) -> str:
    text = _without_gaps(TEXTS[language]["back_to"].format(title=title))
    return f'<a href="{own_url}/cancel">{escape(text)}</a>'


def _other_language(path: str, parameters: Mapping[str, str], language: Language) -> str:
    """The link to the same page in the other language; "" if its URL would be too long. No path: this page's own."""
    other: Language = "en" if language == "zh" else "zh"
    query = urlencode({**parameters, "ui_locales": _TAGS[other]})
    if len(query) > LONGEST_REDIRECT:
        return ""
    return f'<a href="{path}?{escape(query)}" lang="{_TAGS[other]}">{escape(TEXTS[language]["other_language"])}</a>'


def _heading(title: str, redirect_uris: Sequence[str], asked: str) -> str:
    """The title, and the site's origin: on a loopback address, where any port is good, with the port asked for."""
    shown = asked if not redirect_uris or is_loopback(urlsplit(asked).hostname) else redirect_uris[0]
    return f'<h1>{escape(title)}</h1>\n<p class="origin">{escape(origin_of(shown))}</p>'


def _message(name: str, texts: Texts) -> tuple[str, str]:
    """The title of a message, and its HTML."""
    title = texts[f"{name}_title"]
    return title, f"<h1>{escape(title)}</h1>{_paragraph('', texts[name])}"


def _url(parameters: Mapping[str, str]) -> str:
    return f"{AUTHORIZE_PATH}?{urlencode(parameters)}"


def _paragraph(kind: str, text: str) -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def _hidden(fields: Mapping[str, str]) -> str:
    return "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items())


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return escape(root.rstrip("/"))
