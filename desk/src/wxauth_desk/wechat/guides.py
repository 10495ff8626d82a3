"""The guides of a clone as web pages, so that the desk can link to them."""

import re
from html import escape
from http import HTTPStatus
from importlib.util import find_spec
from itertools import pairwise
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from wxauth_desk.clone import CLONE

_INDEXES: Final = {"en": "docs/README.md", "zh-CN": "docs/zh/README.md"}
# No part of such a path begins with a dot, so the file is neither hidden nor outside the clone.
_SENT_FILE: Final = re.compile(r"([\w-][\w.-]*/)*[\w-][\w.-]*\.(md|png|svg)")
# The pages have links to other files of the clone, such as programs, which this module does not send.
_FOLLOWED_LINK: Final = re.compile(r"https?:.*|#.*|[^:#]*\.md(#.*)?")
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE: Final = """<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/desk/icon.svg">
<link rel="stylesheet" href="/desk/base.css">
<link rel="stylesheet" href="/desk/guides.css">
<main>{content}</main>
</html>
"""


def guide_urls(path: str) -> dict[str, str] | None:
    """Return the URL of the list of guides below a path, by language; None if there are no guides.

    An installed desk has no guides, and the program that converts them comes with the tools of a clone.
    """
    has_guides = all((CLONE / index).is_file() for index in _INDEXES.values())
    if not has_guides or find_spec("markdown_it") is None:
        return None
    return {language: path + index for language, index in _INDEXES.items()}


async def send_guide(request: Request) -> Response:
    """Send a page of the clone, converted from Markdown, or a picture. `path` is the file's path in the clone."""
    path = request.path_params["path"]
    file = CLONE / path
    if not _SENT_FILE.fullmatch(path) or not file.is_file():
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if file.suffix != ".md":
        return FileResponse(file, headers=_HEADERS)
    is_chinese = path.startswith("docs/zh/") or path.endswith(".zh-CN.md")
    return HTMLResponse(_page(file.read_text("utf-8"), "zh-CN" if is_chinese else "en"), headers=_HEADERS)


def _page(markdown: str, language: str) -> str:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(markdown)
    title = ""
    for token, content in pairwise(tokens):
        token.attrs.pop("style", None)  # the policy allows no inline styles, which align a column
        if token.type == "heading_open":
            heading = "".join(child.content for child in content.children or [])
            token.attrSet("id", _anchor(heading))
            title = title or heading
    for link in (child for token in tokens for child in token.children or [] if child.type == "link_open"):
        if not _FOLLOWED_LINK.fullmatch(str(link.attrs["href"])):
            del link.attrs["href"]
    content = parser.renderer.render(tokens, parser.options, {})
    return _PAGE.format(language=language, title=escape(title), content=content)


def _anchor(heading: str) -> str:
    """Return the anchor that links in the guides use for a heading, for example `a-new-key` for `A new key`."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
