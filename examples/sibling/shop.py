"""A shop that sells a membership by WeChat's virtual payment. wxauth signs payments, and forwards WeChat's notices."""

import hmac
import json
import os
import secrets
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha1
from typing import Annotated, Any
from xml.etree import ElementTree

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from wxauth_guard import BearerGuard, Principal

PRICE = 1800  # fen
GOODS = {
    "offerId": "1450000000",
    "productId": "vip_month",
    "goodsPrice": PRICE,
    "buyQuantity": 1,
    "currencyType": "CNY",
}


def create_shop(env: Mapping[str, str] = os.environ) -> FastAPI:
    issuer, app_key, push_token = env.get("WXAUTH_ISSUER", "http://127.0.0.1:8000"), env["APP_KEY"], env["PUSH_TOKEN"]
    aes_key, pay_env = env.get("PUSH_AES_KEY"), int(env.get("PAY_ENV", "0"))
    wxauth = httpx.AsyncClient(base_url=issuer, auth=(env["CLIENT_ID"], env["CLIENT_SECRET"]), trust_env=False)
    shop, guard = FastAPI(title="Shop"), BearerGuard(issuer=issuer)
    orders: dict[str, dict[str, Any]] = {}  # in production, use a database

    @shop.post("/orders")
    async def order(user: Annotated[Principal, Depends(guard)]) -> Response:
        number = secrets.token_hex(8)
        data = json.dumps({**GOODS, "env": pay_env, "outTradeNo": number, "attach": str(user.id)})
        path, asked = f"/v1/apps/{user.app_id}/signatures", {"openid": user.openid, "data": data}
        answer = await wxauth.post(path, json=asked)
        if answer.status_code != 200:  # after session_key_expired, the mini-program logs in and orders again
            return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))
        orders[number] = {"user": user.id, "openid": user.openid, "is_paid": False, "is_refunded": False}
        pay_sig = hmac.digest(app_key.encode(), f"requestVirtualPayment&{data}".encode(), "sha256").hex()
        signed = {"signData": data, "paySig": pay_sig, "signature": answer.json()["signature"]}
        return JSONResponse({"number": number, "mode": "short_series_goods", **signed})

    @shop.get("/orders/{number}")
    async def status(number: str, user: Annotated[Principal, Depends(guard)]) -> dict[str, bool]:
        if number not in orders or orders[number]["user"] != user.id:
            raise HTTPException(404)
        return {name: orders[number][name] for name in ("is_paid", "is_refunded")}

    def check(query: Mapping[str, str], name: str, *parts: str) -> None:
        text = "".join(sorted([push_token, query.get("timestamp", ""), query.get("nonce", ""), *parts]))
        if not hmac.compare_digest(sha1(text.encode()).hexdigest().encode(), query.get(name, "").encode()):  # noqa: S324 - WeChat's
            raise HTTPException(403)

    @shop.get("/wechat")
    async def confirm(request: Request) -> Response:
        # WeChat calls this route when you save the URL, and so does `wxauth check`.
        check(request.query_params, "signature")
        return PlainTextResponse(request.query_params.get("echostr", ""))

    @shop.post("/wechat")
    async def receive(request: Request) -> Response:
        body = await request.body()
        if aes_key:
            encrypted = message_in(body)["Encrypt"]
            check(request.query_params, "msg_signature", encrypted)
            message = message_in(decrypted(encrypted, aes_key))
        else:
            check(request.query_params, "signature")
            message = message_in(body)
        event = message.get("Event")
        if event not in ("xpay_goods_deliver_notify", "xpay_refund_notify"):
            return PlainTextResponse("success")
        is_refund = event == "xpay_refund_notify"
        bought = orders.get(message["MchOrderId" if is_refund else "OutTradeNo"], {})
        fen = int(message["RefundFee"] if is_refund else message["GoodsInfo"]["ActualPrice"])
        if (bought.get("openid"), PRICE) != (message["OpenId"], fen):
            return answer_to(body, 1, "no such order")
        bought["is_refunded"] |= is_refund and int(message["RetCode"]) == 0
        # WeChat may repeat the notice of a payment, even after the refund.
        bought["is_paid"] = not bought["is_refunded"]
        return answer_to(body, 0, "success")  # sent after the notice is stored, because WeChat does not repeat it

    return shop


def message_in(body: bytes) -> Any:
    """Return the fields of a message in JSON or XML. WeChat's console sets the format. In XML, all values are texts."""
    return json.loads(body) if body.startswith(b"{") else tree_of(ElementTree.fromstring(body))  # noqa: S314 - expat bounds entities


def tree_of(element: ElementTree.Element) -> Any:
    return {child.tag: tree_of(child) for child in element} or element.text or ""


def answer_to(body: bytes, code: int, text: str) -> Response:
    """Return the response to WeChat, in the format of its message."""
    if body.startswith(b"{"):
        return JSONResponse({"ErrCode": code, "ErrMsg": text})
    return Response(f"<xml><ErrCode>{code}</ErrCode><ErrMsg>{text}</ErrMsg></xml>", media_type="text/xml")


def decrypted(encrypted: str, aes_key: str) -> bytes:
    """Return the decrypted message.

    The plaintext consists of 16 random bytes, 4 bytes with the length, the message and the AppID.
    """
    key = b64decode(aes_key + "=")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    plain = decryptor.update(b64decode(encrypted)) + decryptor.finalize()
    return plain[20 : 20 + int.from_bytes(plain[16:20], "big")]
