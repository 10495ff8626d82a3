"""Record a login of the simulated phone in `docs/site/login.json`, which the front page of the site replays.

Run this script while `scripts/dev` is running: .venv/bin/python scripts/record_login.py [URL of the simulated WeChat]
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import httpx

RECORDED: Final = Path(__file__).parents[1] / "docs/site/login.json"
_DEFAULT_WECHAT_URL: Final = "http://127.0.0.1:8001"
_USER_AGENT: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44(0x18002c2d)"
"""The user agent of the phone."""
_SHOWN_CHARACTERS: Final = 16
"""The number of characters that remain of a shortened value."""
_SHORTENED_NAMES: Final = ("access_token", "refresh_token", "code", "js_code", "signature", "paySig", "signData")
"""The names of the long values that are shortened: codes, tokens, signatures and signed data."""


def record(wechat_url: str) -> list[dict[str, Any]]:
    """Log in alice, call the shop's back end with her access token, and return the steps of both.

    Each step contains the name of the `step`, its `request`, and the `body` and the `answer`, if there are any.
    """
    with httpx.Client(base_url=wechat_url, timeout=10) as desk:
        setup = desk.get("/desk/setup").json()

        def send_from_phone(url: str, *, headers: dict[str, str] | None = None, body: object = None) -> httpx.Response:
            phone_headers = {"X-Phone-Url": url, "X-Phone-User-Agent": _USER_AGENT, **(headers or {})}
            return desk.post("/desk/request", headers=phone_headers, json=body)

        login_code = desk.post("/codes", json={"person": "alice"}).json()
        login = send_from_phone(f"{setup['service_url']}/v1/login", body=login_code)
        calls = desk.get("/desk/wires/0").json()["calls"]
        exchange = [call for call in calls if call["path"] == "/sns/jscode2session"][-1]
        bearer = f"Bearer {login.json()['access_token']}"
        order = send_from_phone(f"{setup['shop_url']}/orders", headers={"Authorization": bearer})
    return [
        {"step": "code", "request": "wx.login()", "answer": _shortened(login_code)},
        {"step": "login", "request": "POST /v1/login", "body": _shortened(login_code)},
        {
            "step": "wechat",
            "request": f"GET {exchange['path']}",
            "body": _shortened(exchange["query"]),
            "answer": exchange["answer"],  # the simulated WeChat has masked the secret in it
        },
        {"step": "tokens", "request": str(login.status_code), "answer": _shortened(login.json())},
        {
            "step": "service",
            "request": "POST /orders",
            "body": {"Authorization": f"{bearer[: len('Bearer ') + _SHOWN_CHARACTERS]}…"},
            "answer": _shortened(order.json()),
        },
    ]


def _shortened(value: Any) -> Any:
    """Return a JSON value in which the long values of `_SHORTENED_NAMES` are cut off, also in nested objects."""
    if not isinstance(value, dict):
        return value
    return {name: _cut(inner) if name in _SHORTENED_NAMES else _shortened(inner) for name, inner in value.items()}


def _cut(text: str) -> str:
    """Return the beginning of a text, with an ellipsis, or the whole text if it is short."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


if __name__ == "__main__":
    steps = record(sys.argv[1] if sys.argv[1:] else _DEFAULT_WECHAT_URL)
    RECORDED.write_text(json.dumps(steps, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
