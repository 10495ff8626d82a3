"""Refusals of the simulated WeChat."""

import secrets
from typing import Any, Final

_MESSAGES: Final = {
    -1: "system error",
    0: "ok",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40003: "invalid openid",
    40013: "invalid appid",
    40014: "invalid access_token",
    40029: "invalid code",
    40097: "invalid args, env_version",
    40125: "invalid appsecret",
    40129: "invalid scene",
    40163: "code been used",
    40164: "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist",
    40165: "invalid weapp pagepath",
    40169: "invalid length for scene, or the data is not json string",
    40212: "invalid query",
    40226: "code blocked",
    40234: "invalid signature",
    40243: "invalid appsecret, the appsecret is frozen",
    41001: "access_token missing",
    41002: "appid missing",
    41004: "appsecret missing",
    41008: "missing code",
    41030: "invalid page",
    42001: "access_token expired",
    43104: "appid not match openid",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    48001: "api unauthorized",
    48006: "forbid to clear quota because of reaching the limit",
    50002: "user limited",
    61010: "code is expired, the user has not been active within two hours",
    76003: "rid not found",
    76021: "cgi_path not found",
    85079: "miniprogram has no online release",
    87007: "session_key is not existed or expired",
    87008: "invalid sig_method",
    87009: "invalid signature",
    87014: "risky content",
    89501: "this ip is waiting for the administrator's confirmation",
    89503: "this ip needs the administrator's confirmation",
    89506: "the administrator has refused this ip twice in 24 hours",
    89507: "the administrator has refused this ip in the last hour",
    9410009: "quota exceeded",
}


class CallRefused(Exception):
    """An answer with this errcode."""

    def __init__(self, errcode: int) -> None:
        self.errcode = errcode

    def answer(self) -> dict[str, Any]:
        """The answer in WeChat's form."""
        rid = "-".join(secrets.token_hex(4) for _ in range(3))
        return {"errcode": self.errcode, "errmsg": f"{_MESSAGES.get(self.errcode, 'error')}, rid: {rid}"}
