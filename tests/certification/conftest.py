"""A site, a phone and a browser, as the conformance suite has them."""

from collections.abc import Callable

import pytest

from tests.websites.browsers import Browser
from tests.websites.conftest import add_site as add_site
from tests.websites.conftest import get_phone as get_phone
from tests.websites.conftest import id_token_key as id_token_key
from tests.world import MakeClient
from wxauth.server.core.services import Services


@pytest.fixture
def make_browser(make_client: MakeClient, services: Services) -> Callable[[], Browser]:
    """Browsers of their own, cookies included."""
    return lambda: Browser(make_client(services))
