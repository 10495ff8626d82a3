"""The longest request of a site that wxauth accepts. Each proxy must pass this request and its response on."""

from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx

from tests.world import add_client
from wxauth.core.services import Services
from wxauth.settings.urls import MAX_URL
from wxauth.sites.requests import MAX_ECHOED

REDIRECT_URI = "https://shop.test/".ljust(MAX_URL, "a")
PLAIN = "s" * MAX_ECHOED["state"]
LONGEST = ("发" * 2730).ljust(MAX_ECHOED["state"], "s")
"""The longest `state` that a form may have. Each of its characters needs nine bytes when it's percent-encoded."""


async def add_site(services: Services) -> None:
    await add_client(services.database, "shop", title="Shop", redirect_uris=[REDIRECT_URI], now=services.clock())


def asked(state: str) -> dict[str, Any]:
    """Return a request that wxauth redirects at once, because the browser has no shared login."""
    challenge = {"code_challenge": "c" * 43, "code_challenge_method": "S256"}
    return {"response_type": "code", "client_id": "shop", "prompt": "none", **challenge, "state": state}


def check_longest(client: httpx.Client) -> None:
    """Check that the longest request comes back complete through a proxy. `client` sends its requests to the proxy."""
    by_query = client.get("/v1/authorize", params={**asked(PLAIN), "redirect_uri": REDIRECT_URI})
    form = f"{urlencode(asked(LONGEST))}&redirect_uri={REDIRECT_URI}"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    by_form = client.post("/v1/authorize", content=form, headers=headers)
    for answer, state in ((by_query, PLAIN), (by_form, LONGEST)):
        assert answer.status_code == 303, (answer.status_code, answer.text[:300])
        uri, _, query = answer.headers["location"].partition("?")
        assert uri == REDIRECT_URI
        assert f"state={quote_plus(state)}" in query.split("&")
