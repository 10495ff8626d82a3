"""How long each part of a login to a site lasts."""

from datetime import timedelta
from typing import Final

SCAN_LASTS: Final = timedelta(seconds=180)
"""How long a scan can be used."""
CLAIM_LASTS: Final = timedelta(seconds=60)
"""After this time without a decision, another user may take over the claim."""
VISIT_LASTS: Final = timedelta(seconds=600)
"""How long a visit to WeChat's page may take, and how long its request can be used for another one."""
LINK_LASTS: Final = timedelta(seconds=180)
"""How long a link to WeChat can be claimed and approved."""
LINK_REQUEST_LASTS: Final = timedelta(seconds=600)
"""How long a request whose page has such a link can be used."""
URL_LINK_LASTS: Final = timedelta(days=30)
"""How long WeChat's URL Link of an app opens the mini-program. WeChat makes none that lasts longer."""
URL_LINK_RENEWED_AFTER: Final = timedelta(days=25)
NUMBER_LASTS: Final = timedelta(seconds=120)
"""How long after the approval the number can be typed."""
AUTHORIZATION_CODE_LASTS: Final = timedelta(seconds=60)
"""How long an authorization code is valid."""
REPEATED_WITHIN: Final = timedelta(seconds=15)
"""How long after its use a code from WeChat's browser may come again without ending the session."""
OUTCOME_KEPT: Final = timedelta(hours=1)
"""How long requests and grants are kept after their end. Until then a late poll gets `expired_token`, and reuse of a
code is detected. A request on our own page that nobody answers is deleted when it expires, because anybody can open any
number."""
