"""The documented answers of an operation: an example, and every failure."""

from collections import defaultdict
from typing import Annotated, Any

from pydantic import BaseModel, Field

from wxauth.errors import (
    CodeUsed,
    InsufficientRole,
    InternalError,
    InvalidCode,
    InvalidRequest,
    InvalidToken,
    KeysUnavailable,
    LoginTooOld,
    MissingToken,
    StorageUnavailable,
    TokenExpired,
    WeChatBadResponse,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatTimeout,
    WeChatUnavailable,
    WxAuthError,
)
from wxauth.guard.bearer import BearerGuard
from wxauth.problems import problem_document

BEARER_SECURITY: dict[str, Any] = {"security": [{BearerGuard.scheme_name: []}]}
"""`openapi_extra` of an operation that needs a bearer token."""

PROBLEM_REF = "#/components/schemas/Problem"

GUARDED = (
    InvalidRequest("there are two Authorization headers", status=400),
    MissingToken,
    InvalidToken,
    TokenExpired,
    KeysUnavailable,
    StorageUnavailable,
)
"""The failures of every guarded operation."""
FOR_ADMINISTRATORS = (*GUARDED, InsufficientRole)
"""The failures of every operation for administrators."""
FOR_FRESH_ADMINISTRATORS = (LoginTooOld, *FOR_ADMINISTRATORS)
"""The failures of those that want a fresh login too."""

WECHAT_FAILURES = (WeChatRateLimited, WeChatBadResponse, WeChatMisconfigured, WeChatUnavailable, WeChatTimeout)
"""The failures of every operation that asks WeChat."""

_EXAMPLES: dict[type[WxAuthError], WxAuthError] = {
    InvalidRequest: InvalidRequest.of("code", "Field required"),
    InvalidCode: InvalidCode(
        "WeChat answered errcode 40029: the code is invalid, has expired, or is another app's", errcode=40029
    ),
    CodeUsed: CodeUsed("WeChat answered errcode 40163: the code has been used", errcode=40163),
    WeChatMisconfigured: WeChatMisconfigured(
        "WeChat answered errcode 40164: this server's address is not on the IP whitelist", errcode=40164
    ),
}


class Problem(BaseModel):
    """A failure (RFC 9457)."""

    type: Annotated[str, Field(description="`urn:wxauth:problem:<code>`.")]
    title: Annotated[str, Field(description="One short sentence for the person, in Chinese or English.")]
    status: int
    detail: Annotated[str, Field(description="For the developer, in English.")]
    code: Annotated[str, Field(description="Stable. Programs decide by this field.")]
    request_id: str
    wechat_errcode: Annotated[int | None, Field(description="WeChat's errcode, if it gave one.")] = None
    errors: Annotated[list[dict[str, str]] | None, Field(description="For `invalid_request`: field and message.")] = (
        None
    )


def answers(example: Any, *kinds: type[WxAuthError] | WxAuthError) -> dict[int | str, dict[str, Any]]:
    """`responses` for FastAPI: an example of the answer, and the failures."""
    return {200: {"content": {"application/json": {"example": example}}}, **failures(*kinds)}


def failures(*kinds: type[WxAuthError] | WxAuthError) -> dict[int | str, dict[str, Any]]:
    """`responses` for FastAPI: each status with an example for each code. A class stands for a typical example."""
    examples: dict[int, dict[str, Any]] = defaultdict(dict)
    for kind in (*kinds, InternalError):
        error = kind if isinstance(kind, WxAuthError) else _example(kind)
        examples[error.status][error.code] = {
            "value": problem_document(error, language="zh", request_id="0f8fad5bd9cb469fa16570867728950e")
        }
    return {
        status: {
            "description": ", ".join(f"`{code}`" for code in by_code),
            "content": {"application/problem+json": {"schema": {"$ref": PROBLEM_REF}, "examples": by_code}},
        }
        for status, by_code in sorted(examples.items())
    }


def _example(kind: type[WxAuthError]) -> WxAuthError:
    return _EXAMPLES.get(kind) or kind((kind.__doc__ or "").partition("\n")[0].rstrip("."))
