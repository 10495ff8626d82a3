"""A site, a phone and a browser, as the conformance suite has them."""

from tests.websites.conftest import add_site as add_site
from tests.websites.conftest import browser as browser
from tests.websites.conftest import get_phone as get_phone
from tests.websites.conftest import house as house
from tests.websites.conftest import id_token_key as id_token_key
from tests.websites.conftest import phone as phone
from tests.websites.conftest import shop as shop
