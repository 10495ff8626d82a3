"""A service that verifies real names. WeChat recognizes the user's face, and wxauth stores the age band."""

import os
import secrets
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

import httpx
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field

from wxauth_guard import BearerGuard, Principal

ISSUER = os.environ.get("WXAUTH_ISSUER", "http://127.0.0.1:8000")
WECHAT = os.environ.get("WECHAT_BASE_URL", "https://api.weixin.qq.com")
guard = BearerGuard(issuer=ISSUER)
app = FastAPI(title="Real names")
http = httpx.AsyncClient(auth=httpx.BasicAuth(*os.environ["WXAUTH_CLIENT"].split(":", 1)), base_url=ISSUER)
asked: dict[UUID, tuple[dict[str, str], str]] = {}  # for several processes, use Redis, with an expiry of one hour


User = Annotated[Principal, Depends(guard)]


class Person(BaseModel):
    name: str
    number: Annotated[str, Field(pattern=r"^\d{6}(19|20)\d{9}[\dX]$")]  # the number of the identity card


async def ask(call: str, **body: Any) -> Any:
    access = await http.get(f"/v1/apps/{os.environ['APP_ID']}/access-token")
    url = f"{WECHAT}/cityservice/face/identify/{call}?access_token={access.raise_for_status().json()['access_token']}"
    answer = (await http.post(url, json=body, auth=httpx.Auth())).raise_for_status().json()
    if answer["errcode"]:
        raise HTTPException(502, f"{call}: errcode {answer['errcode']}")
    return answer


@app.post("/real-name")
async def begin(user: User, person: Person) -> dict[str, str]:
    cert = {"cert_type": "IDENTITY_CARD", "cert_name": person.name, "cert_no": person.number}
    number = secrets.token_hex(16)
    answer = await ask("getverifyid", out_seq_no=number, cert_info=cert, openid=user.openid)
    encoded = "&".join(f"{name}={b64encode(value.encode()).decode()}" for name, value in cert.items())
    proof = {"out_seq_no": number, "cert_hash": sha256(encoded.encode()).hexdigest()}
    asked[user.id] = {"verify_id": answer["verify_id"], **proof}, person.number[6:14]
    return {"verifyId": answer["verify_id"]}  # for wx.requestFacialVerify


@app.post("/real-name/result")
async def end(user: User) -> dict[str, str]:
    question, born = asked.get(user.id, ({}, ""))
    if not question or (await ask("queryverifyinfo", openid=user.openid, **question))["verify_ret"] != 10000:
        raise HTTPException(409, "not recognised")
    today = datetime.now(UTC)
    age = (int(f"{today:%Y%m%d}") - int(born)) // 10000
    facts = {"age_band": "0-13" if age < 14 else "14-17" if age < 18 else "18+", "verified_at": f"{today:%Y-%m-%d}"}
    (await http.patch(f"/v1/users/{user.id}/attributes", json=facts)).raise_for_status()
    return facts
