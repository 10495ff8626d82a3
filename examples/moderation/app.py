"""A service that asks WeChat to check new names and pictures, and removes the risky ones.

pip install cryptography fastapi httpx uvicorn
uvicorn app:app --port 8014
"""

import asyncio
import hmac
import json
import os
import sqlite3
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from hashlib import sha1
from typing import Any

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse

APP_ID, PUSH_TOKEN = os.environ["APP_ID"], os.environ["PUSH_TOKEN"]
AES_KEY = b64decode(os.environ["PUSH_AES_KEY"] + "=")
WECHAT = os.environ.get("WECHAT", "https://api.weixin.qq.com")
PROFILE, PICTURE = 1, 2
TYPES, CHECKED = ["user.created", "user.profile_changed"], {"nickname", "avatar_url"}
ASKED = "CREATE TABLE IF NOT EXISTS asked (trace_id TEXT PRIMARY KEY, user_id TEXT, avatar_url TEXT, at REAL)"
CURSOR = "CREATE TABLE IF NOT EXISTS cursor (only INTEGER PRIMARY KEY CHECK (only = 1), value TEXT)"

wxauth = httpx.Client(
    base_url=os.environ.get("WXAUTH_ISSUER", "http://127.0.0.1:8000"),
    auth=(os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]),
    timeout=10,
)


def stored(sql: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(os.environ.get("MODERATION", "moderation.sqlite"))) as database, database:
        return database.execute(sql, values).fetchall()


def call_wechat(path: str, **body: Any) -> dict[str, Any]:
    token = wxauth.get(f"/v1/apps/{APP_ID}/access-token").raise_for_status().json()["access_token"]
    # WeChat does not decode \uXXXX. With escapes, it would check the escape sequences instead of the text.
    content = json.dumps({"version": 2, "scene": PROFILE, **body}, ensure_ascii=False).encode()
    response = httpx.post(WECHAT + path, params={"access_token": token}, content=content, timeout=10)
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


def find_user(user_id: str) -> dict[str, Any] | None:
    response = wxauth.get(f"/v1/users/{user_id}")
    if response.status_code == 404:  # the user has been erased
        return None
    user: dict[str, Any] = response.raise_for_status().json()
    return user


def clear(user_id: str, field: str) -> None:
    response = wxauth.patch(f"/v1/users/{user_id}/profile", json={field: None})
    # 403 means that the user is a member of staff, whose profile cannot be changed. 404 means that the user was erased.
    if response.status_code not in (403, 404):
        response.raise_for_status()


def check_user(user_id: str) -> None:
    """Have WeChat check the current name and picture.

    WeChat checks them only if the user has opened the mini-program within the last two hours. Otherwise, it returns
    error 61010.
    """
    user = find_user(user_id)
    openid = user and next((it["openid"] for it in user["identities"] if it["app_id"] == APP_ID), None)
    if not user or not openid:
        return
    if user["nickname"]:
        answer = call_wechat("/wxa/msg_sec_check", openid=openid, content=user["nickname"], nickname=user["nickname"])
        if answer.get("result", {}).get("suggest") == "risky" or answer.get("errcode") == 87014:
            clear(user["id"], "nickname")
    if user["avatar_url"]:
        asked = {"openid": openid, "media_url": user["avatar_url"], "media_type": PICTURE}
        answer = call_wechat("/wxa/media_check_async", **asked)
        if trace_id := answer.get("trace_id"):
            about = (trace_id, user["id"], user["avatar_url"])
            stored("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, julianday())", *about)


def follow_once() -> None:
    """Check the users who signed up, or changed their name or picture, since the last run.

    The first run starts with the events from now on.
    """
    cursor = stored("SELECT value FROM cursor")
    answer = wxauth.get("/v1/events", params={"type": TYPES, "after": cursor[0][0] if cursor else "now"})
    if answer.status_code == 410:  # the next events were deleted, or wxauth's database was restored from a backup
        stored("DELETE FROM cursor")
        return
    page = answer.raise_for_status().json()
    for user_id in {
        event["user_id"] for event in page["items"] if CHECKED.intersection(event["data"].get("fields", CHECKED))
    }:
        check_user(user_id)
    # The cursor is stored after the checks. If this process ends before, the checks are repeated.
    stored("INSERT OR REPLACE INTO cursor VALUES (1, ?)", page["next_cursor"])
    stored("DELETE FROM asked WHERE at < julianday() - 1")  # WeChat sends its verdict within 30 minutes


async def follow() -> None:
    while True:
        try:
            await run_in_threadpool(follow_once)
        except (httpx.HTTPError, ValueError) as exc:
            print(f"{type(exc).__name__}, trying again")  # noqa: T201 - the example has no log
        await asyncio.sleep(1)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    stored(ASKED)
    stored(CURSOR)
    following = asyncio.create_task(follow())
    yield
    following.cancel()


app = FastAPI(title="Moderation", lifespan=lifespan)


def opened(encrypted: str) -> dict[str, Any]:
    """Decrypt WeChat's message.

    The plaintext consists of 16 random bytes, the length, the JSON text, the app id, and padding.
    """
    text = b64decode(encrypted)
    decryptor = Cipher(algorithms.AES(AES_KEY), modes.CBC(AES_KEY[:16])).decryptor()
    plain = decryptor.update(text) + decryptor.finalize()
    message: dict[str, Any] = json.loads(plain[20 : 20 + int.from_bytes(plain[16:20])])
    return message


@app.post("/wechat")
async def receive(request: Request, timestamp: str, nonce: str, msg_signature: str) -> PlainTextResponse:
    """Receive WeChat's verdict on a picture, which wxauth forwards because of its setting `push_forward`.

    In WeChat's console, set message push to JSON and 安全模式 (encrypted).
    """
    encrypted = json.loads(await request.body())["Encrypt"]
    expected = sha1("".join(sorted([PUSH_TOKEN, timestamp, nonce, encrypted])).encode()).hexdigest()  # noqa: S324
    if not hmac.compare_digest(expected.encode(), msg_signature.encode()):
        raise HTTPException(403, "not WeChat's")
    message = opened(encrypted)
    if message.get("Event") == "wxa_media_check" and message.get("result", {}).get("suggest") == "risky":
        found = await run_in_threadpool(
            stored, "SELECT user_id, avatar_url FROM asked WHERE trace_id = ?", message["trace_id"]
        )
        if not found:
            raise HTTPException(503, "not known yet: WeChat sends it again")
        user_id, avatar_url = found[0]
        user = await run_in_threadpool(find_user, user_id)
        # If the user has replaced the picture, there is a separate check for the new picture.
        if user and user["avatar_url"] == avatar_url:
            await run_in_threadpool(clear, user_id, "avatar_url")
    return PlainTextResponse("success")
