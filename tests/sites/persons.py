"""The page on which a user logs in to the site "admin"."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.sites.browsers import Browser, found_in, hidden_fields, sent

ADMIN_CALLBACK = "https://admin.example.com/callback"
CONSOLE = {"client_id": "wxauth-admin", "redirect_uri": "https://auth.test/admin/", "scope": "wxauth:admin"}
"""The parameters with which the console asks for a login."""
TO_ADMIN: dict[str, Any] = {"client_id": "admin", "redirect_uri": ADMIN_CALLBACK}


@dataclass(frozen=True, slots=True)
class PersonPage:
    """A page that shows a user, with its two buttons."""

    browser: Browser
    html: str

    @property
    def request_id(self) -> str:
        return found_in(self.html, r'action="/v1/authorize/([\w-]{22})/continue"')

    async def press(self, button: str = "continue", browser: Browser | None = None) -> httpx.Response:
        path, fields = f"/v1/authorize/{self.request_id}/{button}", hidden_fields(self.html)
        return await (browser or self.browser).client.post(path, data=fields)


async def person_page(browser: Browser, **parameters: str | None) -> PersonPage:
    answer = await browser.open(**{**TO_ADMIN, **parameters})
    assert answer.status_code == 200, answer.headers.get("location", answer.text)
    return PersonPage(browser, answer.text)


def code_in(answer: httpx.Response) -> str:
    return sent(answer, ADMIN_CALLBACK)["code"]
