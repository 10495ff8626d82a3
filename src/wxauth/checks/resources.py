"""The check of the metadata that clients need in order to find wxauth from a resource (RFC 9728)."""

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import httpx

from wxauth.checks.documents import CONNECT_TIMEOUT_SECONDS, DocumentFault, client_for, get_document
from wxauth.checks.result import CheckResult, bad, good
from wxauth.i18n import lazy_gettext as _
from wxauth_guard.bearer import METADATA_PATH


async def check_resource(url: str, issuer: str, *, patience: float) -> AsyncGenerator[CheckResult, None]:
    """Check whether clients find the metadata of a resource, and this issuer in the metadata.

    The request may take `patience` seconds, and `CONNECT_TIMEOUT_SECONDS` more for connecting.
    """
    name = f"resource {url}"
    parts = urlsplit(url)
    metadata_url = f"{parts.scheme}://{parts.netloc}{METADATA_PATH}{parts.path.removesuffix('/')}"
    time_limits = httpx.Timeout(patience, connect=CONNECT_TIMEOUT_SECONDS)
    try:
        async with asyncio.timeout(patience + CONNECT_TIMEOUT_SECONDS), client_for(url, time_limits) as client:
            metadata = await get_document(client, metadata_url, setting=_("the URL in WXAUTH_RESOURCES"))
    except (DocumentFault, TimeoutError) as exc:
        reason = exc.text if isinstance(exc, DocumentFault) else _("no response in time")
        text = _("{url} can't be read, so clients can't discover wxauth: {reason}", url=metadata_url, reason=reason)
        yield bad(name, text)
        return
    servers = metadata.get("authorization_servers")
    if metadata.get("resource") != url:
        text = _(
            "{url} specifies a different resource. The resource must match the spelling in WXAUTH_RESOURCES exactly",
            url=metadata_url,
        )
        yield bad(name, text)
    elif not isinstance(servers, list) or issuer not in servers:
        text = _("{url} doesn't list {issuer} in authorization_servers", url=metadata_url, issuer=issuer)
        yield bad(name, text)
    else:
        yield good(name, _("has metadata that specifies its own URL and this issuer"))
