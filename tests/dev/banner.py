"""The text that `wxauth-desk dev` prints when it has started."""

from typing import Any

from tests.conftest import NOWHERE, SETTINGS
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth_desk.banner import welcome
from wxauth_desk.own_settings import HOME


def printed_by_dev(language: str, *, issuer: str = "http://127.0.0.1:8000", **urls: str | None) -> str:
    settings = settings_from(Settings, **{**SETTINGS, "issuer": issuer}, database_url=NOWHERE)
    shown: Any = {"simulated_url": "http://127.0.0.1:8001", "site_url": "http://127.0.0.1:8004", **urls}
    mcp_url = shown["simulated_url"] and "http://127.0.0.1:8005/mcp"
    return welcome(settings, **shown, mcp_url=mcp_url, findings=[], home=HOME, language=language)
