"""Checks the public URL: whether siblings find the stored keys there."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic_core import from_json

from wxauth.errors import Title
from wxauth.guard.jwks import MAX_DOCUMENT, METADATA_PATH
from wxauth.server.checks.result import CheckResult, Findings, bad, good, note
from wxauth.server.keys.models import StoredSigningKey
from wxauth.server.outbound.certificates import refusal_of
from wxauth.texts import is_loopback, is_secure
from wxauth.tokens.keys import verification_keys

_NAME: Final = "issuer"
_RESOURCE_METADATA: Final = "/.well-known/oauth-protected-resource"
_CONNECT_TIMEOUT_SECONDS: Final = 3.0
_LONGEST_NAME: Final = 200
# Statuses with which a proxy answers if the service behind it is down.
_NOBODY_BEHIND: Final = frozenset({502, 503, 504})
_IS_IT_RUNNING: Final = Title(
    "right before 'wxauth serve' has started, wrong afterwards", "'wxauth serve' 启动之前属正常，启动之后则不正常"
)
_IS_IT_TLS: Final = Title(
    ": does it speak TLS? Then WXAUTH_ISSUER must begin with https", "：是 TLS 吗？那么 WXAUTH_ISSUER 应为 https"
)
_ANOTHER_SERVICE: Final = Title("another service answers there", "响应的是别的服务")


class _Found(Exception):
    """The fault found, in both languages."""

    def __init__(self, message: str, chinese: str) -> None:
        super().__init__(message)
        self.chinese = chinese


class _NotThere(_Found):
    """Nothing answers. That is normal before the service has started."""


class _Wrong(_Found):
    """The answer is one that siblings cannot use. The text gives the reason and the remedy."""


async def check_issuer(
    issuer: str, found: Findings, *, now: datetime, patience: float
) -> AsyncGenerator[CheckResult, None]:
    """Check whether siblings find the stored keys there. Each document may take `patience` seconds."""
    yield await _judge_issuer(issuer, found.signing_keys, now=now, patience=patience)


async def _judge_issuer(
    issuer: str, keys: Sequence[StoredSigningKey] | None, *, now: datetime, patience: float
) -> CheckResult:
    try:
        async with asyncio.timeout(patience + _CONNECT_TIMEOUT_SECONDS):
            kids = await _published_kids(issuer, httpx.Timeout(patience, connect=_CONNECT_TIMEOUT_SECONDS))
    except _NotThere as exc:
        return note(_NAME, f"{exc}: {_IS_IT_RUNNING.en}", f"{exc.chinese}：{_IS_IT_RUNNING.zh}")
    except _Wrong as exc:
        return bad(_NAME, str(exc), exc.chinese)
    except TimeoutError:
        message = f"{issuer} takes too long to answer: see the service's log, and the proxy in front of it"
        return bad(_NAME, message, f"{issuer} 响应太慢：请查看服务日志及其前面的代理")
    if keys is None:
        message = f"{issuer} answers; whether with the stored keys cannot be told without the database"
        return note(_NAME, message, f"{issuer} 响应正常；没有数据库，无法判断是否为所存的密钥")
    # Keys that do not sign yet are left out, because a cache on the way may hold an older document.
    signing = {key.kid for key in keys if key.activates_at <= now}
    if not signing & kids:
        return bad(
            _NAME,
            f"{issuer} answers with none of the stored keys: the service there has another database, see its "
            "WXAUTH_DATABASE_URL and this one",
            f"{issuer} 返回的密钥都不是所存的：那里的服务用的是另一个数据库，请核对两处的 WXAUTH_DATABASE_URL",
        )
    if missing := signing - kids:
        return bad(
            _NAME,
            f"{issuer} lacks {len(missing)} of {len(signing)} stored keys, and siblings refuse their tokens: does the "
            "service there log signing_keys_not_opened, or a cache keep its jwks_uri for more than five minutes?",
            f"{issuer} 缺少所存 {len(signing)} 个密钥中的 {len(missing)} 个，其他服务会拒绝相应令牌：那里的日志是否有 "
            "signing_keys_not_opened，或 jwks_uri 被缓存超过五分钟？",
        )
    if is_loopback(urlsplit(issuer).hostname):
        message = (
            f"{issuer} answers with the stored keys, to this machine alone: set WXAUTH_ISSUER for phones and WeChat"
        )
        return note(_NAME, message, f"{issuer} 返回所存的密钥，但只有本机能访问：供手机与微信访问请设置 WXAUTH_ISSUER")
    return good(_NAME, f"{issuer} answers with the stored keys", f"{issuer} 返回所存的密钥")


async def _published_kids(issuer: str, limits: httpx.Timeout) -> set[str]:
    # Requests the document as the guard does, so that anything that stops a sibling is found here.
    on_loopback = is_loopback(urlsplit(issuer).hostname)
    tls = httpx.create_ssl_context()  # with SSL_CERT_FILE, even if proxies of the environment are not used
    async with httpx.AsyncClient(verify=tls, timeout=limits, trust_env=not on_loopback) as client:
        metadata = await _get(client, issuer + METADATA_PATH)
        named = metadata.get("issuer")
        if named != issuer:
            other = named.rpartition("@")[2][:_LONGEST_NAME] if isinstance(named, str) else "none"
            raise _Wrong(
                f"{issuer} says that its issuer is {other!r}: its WXAUTH_ISSUER and this one must be the same",
                f"{issuer} 自称 issuer 为 {other!r}：两处的 WXAUTH_ISSUER 必须相同",
            )
        jwks_uri = metadata.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not is_secure(jwks_uri) or not (on_loopback or jwks_uri[:6] == "https:"):
            raise _other_service(f"{issuer} has no jwks_uri with https", f"{issuer} 没有 https 的 jwks_uri")
        documents = (await _get(client, jwks_uri)).get("keys")
    if not isinstance(documents, list):
        raise _other_service(f"{jwks_uri} has no list of keys", f"{jwks_uri} 没有密钥列表")
    return set(verification_keys(documents))


async def check_resource(url: str, issuer: str, *, patience: float) -> AsyncGenerator[CheckResult, None]:
    """Check whether clients find the metadata of a resource, and by it this issuer (RFC 9728)."""
    name, parts = f"resource {url}", urlsplit(url)
    metadata_url = f"{parts.scheme}://{parts.netloc}{_RESOURCE_METADATA}{parts.path.removesuffix('/')}"
    limits, tls = httpx.Timeout(patience, connect=_CONNECT_TIMEOUT_SECONDS), httpx.create_ssl_context()
    try:
        async with (
            asyncio.timeout(patience + _CONNECT_TIMEOUT_SECONDS),
            httpx.AsyncClient(verify=tls, timeout=limits, trust_env=not is_loopback(parts.hostname)) as client,
        ):
            metadata = await _get(client, metadata_url)
    except (_Found, TimeoutError) as exc:
        reason, chinese = (str(exc), exc.chinese) if isinstance(exc, _Found) else ("no answer in time", "响应超时")
        yield bad(
            name,
            f"{metadata_url} is missing, so clients do not find wxauth: {reason}",
            f"缺少 {metadata_url}，客户端因此找不到 wxauth：{chinese}",
        )
        return
    servers = metadata.get("authorization_servers")
    if metadata.get("resource") != url:
        yield bad(
            name,
            f"{metadata_url} names another resource: it must be spelt there as in WXAUTH_RESOURCES",
            f"{metadata_url} 中的 resource 不同：须与 WXAUTH_RESOURCES 中的写法完全一致",
        )
    elif not isinstance(servers, list) or issuer not in servers:
        message = f"{metadata_url} does not name {issuer} among its authorization_servers"
        yield bad(name, message, f"{metadata_url} 的 authorization_servers 中没有 {issuer}")
    else:
        yield good(name, "names itself and this issuer", "元数据与 issuer 均正确")


async def _get(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    try:
        async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            _judge_status(response)
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_DOCUMENT:
                    raise _other_service(f"{url} is too large", f"{url} 的内容过大")
    except httpx.TransportError as exc:
        raise _named(exc, url) from exc
    try:
        document = from_json(bytes(body))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _Wrong(
            f"{url} is no JSON object: {_ANOTHER_SERVICE.en}, or a proxy does not pass it on",
            f"{url} 不是 JSON 对象：{_ANOTHER_SERVICE.zh}，或代理没有转发",
        )
    return document


def _other_service(message: str, chinese: str) -> _Wrong:
    return _Wrong(f"{message}: {_ANOTHER_SERVICE.en}", f"{chinese}：{_ANOTHER_SERVICE.zh}")


def _judge_status(response: httpx.Response) -> None:
    status, url = response.status_code, response.url
    if status == HTTPStatus.OK:
        return
    if status in _NOBODY_BEHIND:
        raise _NotThere(
            f"{url} answers with status {status}, so the proxy there finds no service behind it",
            f"{url} 返回状态 {status}，说明那里的代理找不到后面的服务",
        )
    if response.is_redirect:
        to = urlsplit(response.headers["Location"])
        where = f"{to.scheme}://{to.hostname}{to.path}" if to.hostname else to.path
        raise _Wrong(
            f"{url} redirects to {where[:_LONGEST_NAME]}, where siblings do not follow: serve it there, "
            "or set WXAUTH_ISSUER to where it is",
            f"{url} 重定向到 {where[:_LONGEST_NAME]}，其他服务不会跟随：请在原处提供，或把 WXAUTH_ISSUER 设为该地址",
        )
    raise _Wrong(
        f"{url} answers with status {status}: {_ANOTHER_SERVICE.en}, or the proxy in front "
        "does not pass /.well-known/ on",
        f"{url} 返回状态 {status}：{_ANOTHER_SERVICE.zh}，或前面的代理没有转发 /.well-known/",
    )


def _named(exc: httpx.TransportError, url: str) -> _NotThere | _Wrong:
    """The fault behind an httpx error, by the error's cause."""
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}"
    for cause in _causes(exc):
        match cause:
            case ssl.SSLCertVerificationError():
                en, zh = refusal_of(cause)
                if en == cause.verify_message:
                    en = f"{en}; have the proxy there send a certificate for this name, with its whole chain"
                    zh = f"{zh}；请让那里的代理提供该域名的证书及完整证书链"
                return _Wrong(f"{where} has a certificate that does not hold: {en}", f"{where} 的证书无效：{zh}")
            case ssl.SSLError() if not isinstance(cause, ssl.SSLWantReadError):
                return _Wrong(
                    f"{where} does not speak TLS ({cause.reason}): is it plain http? Siblings require https",
                    f"{where} 不支持 TLS（{cause.reason}）：是 http 吗？其他服务要求 https",
                )
            case socket.gaierror():
                return _NotThere(f"{where} is a name that is not known here", f"{where} 的域名在本机无法解析")
            case ConnectionRefusedError():
                return _NotThere(f"nothing listens at {where}", f"{where} 没有程序在监听")
    kind = type(exc).__name__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return _NotThere(f"{where} cannot be connected to from here ({kind})", f"本机无法连接 {where}（{kind}）")
    if isinstance(exc, httpx.TimeoutException):
        return _Wrong(
            f"{where} takes the connection and does not answer: see the service's log, and the proxy's",
            f"{where} 接受连接但没有响应：请查看服务与代理的日志",
        )
    hint = _IS_IT_TLS if parts.scheme == "http" else Title("", "")
    return _Wrong(
        f"{where} closes the connection without an answer ({kind}){hint.en}",
        f"{where} 没有响应就关闭了连接（{kind}）{hint.zh}",
    )


def _causes(exc: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = exc
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
