"""Responses of the login page that make the browser post a form to the site."""

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

import httpx

from tests.sites.browsers import hidden_fields
from tests.world import CALLBACK

BY_FORM: dict[str, Any] = {"response_mode": "form_post"}


def posted(page: httpx.Response, to: str = CALLBACK) -> Mapping[str, str]:
    """Return the fields that a page posts to the site."""
    assert page.status_code == 200, page.headers.get("location", page.text)
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "form-action" not in page.headers["content-security-policy"]
    assert '/v1/pages/post.js"' in page.text
    form = re.search(r'<form method="post" action="([^"]+)">(.*?)</form>', page.text, re.DOTALL)
    assert form, page.text
    assert unescape(form[1]) == to
    assert '<button class="button">' in form[2]
    return hidden_fields(page)
