"""The errcodes (error codes) that the simulated WeChat returns when it refuses a call.

WeChat's own errmsgs are in `errmsgs.txt`.
"""

from enum import IntEnum


class Errcode(IntEnum):
    """The errcodes that the simulated WeChat chooses itself. A fault can name any other errcode."""

    BUSY = -1
    WRONG_ACCESS_TOKEN = 40001
    WRONG_GRANT_TYPE = 40002
    WRONG_OPENID = 40003
    WRONG_APP_ID = 40013
    UNKNOWN_ACCESS_TOKEN = 40014
    WRONG_CODE = 40029
    WRONG_REFRESH_TOKEN = 40030
    UNKNOWN_URL = 40066
    """The errcode for a call to an unknown path."""
    WRONG_ARGUMENT = 40097
    WRONG_SECRET = 40125
    WRONG_SCENE = 40129
    USED_CODE = 40163
    NOT_WHITELISTED = 40164
    UNPUBLISHED_PAGE = 40165
    WRONG_SCENE_LENGTH = 40169
    """Also the errcode that `getwxacodeunlimit` returns for a body that is not a JSON object."""
    WRONG_QUERY = 40212
    FROZEN_SECRET = 40243
    MISSING_ACCESS_TOKEN = 41001
    MISSING_APP_ID = 41002
    MISSING_REFRESH_TOKEN = 41003
    MISSING_SECRET = 41004
    MISSING_CODE = 41008
    WRONG_PAGE = 41030
    EXPIRED_ACCESS_TOKEN = 42001
    EXPIRED_CODE = 42003
    GET_REQUIRED = 43001
    POST_REQUIRED = 43002
    OPENID_OF_ANOTHER = 43104
    EMPTY_BODY = 44002
    USED_UP_QUOTA = 45009
    TOO_FREQUENT = 45011
    WRONG_BODY = 47001
    NOT_ALLOWED = 48001
    TOO_MANY_CLEARINGS = 48006
    NOT_WHITELISTED_WITH_TOKEN = 61004
    """The errcode for an IP address that is not on the whitelist, if the call has an access token."""
    INACTIVE_PERSON = 61010
    UNKNOWN_RID = 76003
    UNKNOWN_PATH = 76021
    """The errcode that `quota_get` returns if no API has the path in the body."""
    NO_RELEASE = 85079
    WRONG_EXPIRY = 85401
    WRONG_VERSION = 85402
    NO_SESSION_KEY = 87007
    WRONG_SIG_METHOD = 87008
    WRONG_SESSION_SIGNATURE = 87009
    UNKNOWN_ORDER = 90000
    WRONG_SIGNATURE = 90010
    WRONG_PAY_SIG = 90011
    REPEATED_ORDER = 90012
    TOO_FEW_COINS = 90013
    WRONG_PARAMETER = 90018
    USED_UP_RISK_QUOTA = 9410009
