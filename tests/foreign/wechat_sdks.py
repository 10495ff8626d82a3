"""Runs calls of wechatpy and werobot in their own Python. It reads calls as JSON, and prints their results as JSON.

The libraries are unmodified except for WeChat's host, which they can't be configured to use.
"""

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import requests
import wechatpy
import werobot.client
from Cryptodome.Cipher import AES
from Cryptodome.Util.Padding import pad
from wechatpy.crypto import WeChatCrypto, WeChatWxaCrypto
from wechatpy.oauth import WeChatOAuth
from werobot.crypto import MessageCrypt

CALLS: dict[str, Callable[..., Any]] = {}
Call = Callable[..., Any]


def ask_at(wechat_url: str) -> None:
    ask = requests.Session.request

    def request(self: requests.Session, method: str, url: str, **how: Any) -> requests.Response:
        return ask(self, method, url.replace("https://api.weixin.qq.com", wechat_url), **how)

    requests.Session.request = request  # type: ignore[assignment, method-assign]


def called(call: Call) -> Call:
    CALLS[call.__name__] = call
    return call


@called
def client(app_id: str, secret: str, account_id: str, account_secret: str) -> dict[str, Any]:
    """Return the results of wechatpy for a mini-program and a service account, and the errcode of each mistake."""

    def errcode(call: Call, *args: Any, **named: Any) -> int | None:
        try:
            call(*args, **named)
        except (wechatpy.WeChatClientException, wechatpy.WeChatOAuthException) as exc:
            return exc.errcode
        return None

    mini = wechatpy.WeChatClient(app_id, secret)
    account = wechatpy.WeChatClient(account_id, account_secret)
    oauth = WeChatOAuth(account_id, account_secret, "https://shop.example.com/", scope="snsapi_userinfo")
    granted = oauth.fetch_access_token("alice")
    info = oauth.get_user_info()
    renewed = oauth.refresh_access_token(granted["refresh_token"])
    return {
        "session": mini.wxa.code_to_session("alice"),
        "code": mini.wxa.get_wxa_code_unlimited("a=1", page="pages/index/index").content[:2].hex(),
        "ticket": account.jsapi.get_jsapi_ticket(),
        "card": errcode(account.jsapi.get_ticket, "wx_card"),
        "granted": granted["openid"],
        "info": info,
        "renewed": renewed["openid"],
        "is_valid": oauth.check_access_token(),
        "unknown": errcode(account.menu.get),
        "wrong_code": errcode(mini.wxa.code_to_session, "two words"),
        "wrong_page": errcode(mini.wxa.get_wxa_code_unlimited, "a=1", page="pages/none"),
        "wrong_secret": errcode(wechatpy.WeChatClient(app_id, "x").fetch_access_token),
    }


@called
def robot(app_id: str, secret: str) -> dict[str, Any]:
    """Return werobot's token, and its error if it raises one."""
    client = werobot.client.Client({"APP_ID": app_id, "APP_SECRET": secret})
    try:
        client.get_ip_list()
    except werobot.client.ClientException as exc:
        return {"token": client.token, "error": str(exc)}
    return {"token": client.token}


@called
def sealed(sdk: str, token: str, aes_key: str, app_id: str, message: str, timestamp: str) -> str:
    """Return a message as this SDK encrypts and signs it."""
    if sdk == "wechatpy":
        return WeChatCrypto(token, aes_key, app_id).encrypt_message(message, "n1", timestamp)
    return MessageCrypt(token, aes_key, app_id).encrypt_message(message, timestamp, "n2")


@called
def opened(sdk: str, token: str, aes_key: str, app_id: str, query: dict[str, str], encrypted: str) -> str:
    """Return a pushed message as this SDK checks and decrypts it."""
    signed = query["msg_signature"], query["timestamp"], query["nonce"]
    if sdk == "wechatpy":
        text = WeChatCrypto(token, aes_key, app_id).decrypt_message({"Encrypt": encrypted}, *signed)
    else:
        text = MessageCrypt(token, aes_key, app_id).decrypt_message(*signed[1:], signed[0], encrypted)
    return text.decode() if isinstance(text, bytes) else text


@called
def decrypted(key: str, iv: str, app_id: str, data: str) -> Any:
    """Decrypt the `encryptedData` of a mini-program."""
    return WeChatWxaCrypto(key, iv, app_id).decrypt_message(data)


@called
def encrypted(key: str, iv: str, data: str) -> str:
    """Return the `encryptedData` that a mini-program would get, encrypted by PyCryptodome."""
    aes = AES.new(b64decode(key), AES.MODE_CBC, b64decode(iv))
    return b64encode(aes.encrypt(pad(data.encode(), AES.block_size))).decode()


@called
def page_signature(nonce: str, ticket: str, timestamp: str, page: str) -> str:
    """Return the JS-SDK's signature of a page."""
    return wechatpy.WeChatClient("-", "-").jsapi.get_jsapi_signature(nonce, ticket, timestamp, page)


if __name__ == "__main__":
    ask_at(sys.argv[1])
    name, arguments = json.load(sys.stdin)
    json.dump(CALLS[name](**arguments), sys.stdout)
