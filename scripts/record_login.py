"""Record a login of the phone on the desk, which the site's front page replays (`docs/site/login.json`).

Run it while `scripts/dev` runs: .venv/bin/python scripts/record_login.py [URL of the simulated WeChat].
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import httpx

RECORDED: Final = Path(__file__).parents[1] / "docs/site/login.json"
PHONE: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44(0x18002c2d)"
CUT: Final = 16
"""The number of characters that are shown of a code or token."""
SECRETS: Final = ("access_token", "refresh_token", "code", "js_code", "signature", "paySig", "signData")


def cut(value: Any) -> Any:
    """Return a value in which each code and token is shortened."""
    if not isinstance(value, dict):
        return value
    return {
        name: f"{part[:CUT]}…" if name in SECRETS and len(part) > CUT else cut(part) for name, part in value.items()
    }


def record(wechat_url: str) -> list[dict[str, Any]]:
    """Return the steps of a login and of a call of a service, each with sender, receiver, request and response."""
    with httpx.Client(base_url=wechat_url, timeout=10) as desk:
        setup = desk.get("/desk/setup").json()

        def phone(url: str, **request: Any) -> httpx.Response:
            headers = {"X-Phone-Url": url, "X-Phone-User-Agent": PHONE, **request.pop("headers", {})}
            return desk.post("/desk/request", headers=headers, **request)

        code = desk.post("/codes", json={"person": "alice"}).json()
        answer = phone(f"{setup['service_url']}/v1/login", json=code)
        tokens = answer.json()
        *_, asked = (
            call for call in desk.get("/desk/wires/0").json()["calls"] if call["path"] == "/sns/jscode2session"
        )
        bearer = f"Bearer {tokens['access_token']}"
        ordered = phone(f"{setup['shop_url']}/orders", headers={"Authorization": bearer})
    return [
        {"step": "code", "request": "wx.login()", "answer": cut(code)},
        {"step": "login", "request": "POST /v1/login", "body": cut(code)},
        {"step": "wechat", "request": f"GET {asked['path']}", "body": cut(asked["query"]), "answer": asked["answer"]},
        {"step": "tokens", "request": str(answer.status_code), "answer": cut(tokens)},
        {
            "step": "service",
            "request": "POST /orders",
            "body": {"Authorization": f"{bearer[: CUT + len('Bearer ')]}…"},
            "answer": cut(ordered.json()),
        },
    ]


if __name__ == "__main__":
    steps = record(sys.argv[1] if sys.argv[1:] else "http://127.0.0.1:8001")
    RECORDED.write_text(json.dumps(steps, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
