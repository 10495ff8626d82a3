"""What operations return: examples and failures for their documentation, and responses that caches can check again."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from wxauth import errors
from wxauth_guard import BearerGuard
from wxauth_guard.errors import InvalidRequest, InvalidToken, KeysUnavailable, MissingToken, TokenExpired, WxAuthError
from wxauth_guard.problems import problem_document

Failure = type[WxAuthError] | WxAuthError
"""A failure that an operation may return. For a class, the documentation shows a typical error of the class."""
# The alternatives that OpenAPI lists for an operation. Among them, `{}` means no credentials.
Security = Sequence[Mapping[str, Sequence[str]]]

BEARER: Final[Security] = ({BearerGuard.scheme_name: ()},)  # requires an access token

PROBLEM_REF: Final = "#/components/schemas/Problem"


@dataclass(frozen=True, slots=True)
class Entails:
    """What a parameter documents for each operation that has it. Put this object into the parameter's `Annotated`."""

    failures: Sequence[Failure] = ()
    security: Security = ()


# Every operation that takes an access token, even an optional one, can fail with these.
GUARDED: Final[Sequence[Failure]] = (
    InvalidRequest("there are two Authorization headers", status=HTTPStatus.BAD_REQUEST),
    MissingToken,
    InvalidToken,
    TokenExpired,
    KeysUnavailable,
    errors.StorageUnavailable,
)

WECHAT_FAILURES: Final[Sequence[Failure]] = (
    errors.WeChatRateLimited,
    errors.WeChatBadResponse,
    errors.WeChatMisconfigured,
    errors.WeChatUnavailable,
    errors.WeChatTimeout,
)
# Every operation that takes a login code or a phone code from WeChat can fail with these.
CODE_FAILURES: Final[Sequence[Failure]] = (
    errors.UnknownApp,
    errors.InvalidCode,
    errors.CodeUsed,
    errors.WeChatUserBlocked,
    errors.RateLimited,
    *WECHAT_FAILURES,
)

_EXAMPLE_REQUEST_ID: Final = "0f8fad5bd9cb469fa16570867728950e"
# The examples whose `detail` is not simply the first line of the class's docstring.
_TYPICAL: Final[Mapping[type[WxAuthError], WxAuthError]] = {
    InvalidRequest: InvalidRequest.of("code", "Field required"),
    errors.InvalidCode: errors.InvalidCode(
        "WeChat returned errcode 40029: the wx.login code is invalid, has expired, or belongs to another app",
        errcode=40029,
    ),
    errors.CodeUsed: errors.CodeUsed(
        "WeChat returned errcode 40163: the wx.login code has already been used", errcode=40163
    ),
    errors.AccountLeaving: errors.AccountLeaving(datetime(2026, 11, 27, 8, tzinfo=UTC)),
    errors.WeChatMisconfigured: errors.WeChatMisconfigured(
        "WeChat returned errcode 40164: this server's IP address isn't on the IP whitelist", errcode=40164
    ),
}


class Problem(BaseModel):
    """The body of a response to a failure (RFC 9457). `docs/reference/errors.md` says what to do about each code."""

    type: Annotated[str, Field(description="`urn:wxauth:problem:<code>`.")]
    title: Annotated[str, Field(description="One short sentence for the user, in Chinese or English.")]
    status: int
    detail: Annotated[str, Field(description="For the developer, in English.")]
    code: Annotated[str, Field(description="Stable: programs should check this field.")]
    request_id: str
    wechat_errcode: Annotated[int | None, Field(description="WeChat's errcode, if it gave one.")] = None
    until: Annotated[datetime | None, Field(description="For `account_disabled`: when the ban ends automatically.")] = (
        None
    )
    erase_at: Annotated[datetime | None, Field(description="For `account_leaving`: when the user is erased.")] = None
    errors: Annotated[
        list[dict[str, str]] | None,
        Field(description="For `invalid_request`: the field and the message of each error."),
    ] = None


def failures_of(*failures: Failure) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` for FastAPI: each status, with an example for each error code.

    If several failures have the same status and code, the last one is the example. `InternalError` is always included,
    because any operation may fail with it.
    """
    examples: dict[int, dict[str, Any]] = defaultdict(dict)
    for failure in (*failures, errors.InternalError):
        error = failure if isinstance(failure, WxAuthError) else _typical_error(failure)
        examples[error.status][error.code] = {
            "value": problem_document(error, language="zh-CN", request_id=_EXAMPLE_REQUEST_ID)
        }
    return {
        status: {
            "description": ", ".join(f"`{code}`" for code in by_code),
            "content": {"application/problem+json": {"schema": {"$ref": PROBLEM_REF}, "examples": by_code}},
        }
        for status, by_code in sorted(examples.items())
    }


def example_of(hint: Any) -> Any:
    """Build an example of a response from the examples of its fields: `Field(examples=[...])`.

    The example omits an optional field that has neither an example nor a default. A nullable field without an example
    is null, unless its type is a model or an enumeration, which has its own example. A time, a boolean or a `Literal`
    needs no example.

    Raises: TypeError, if any other field has no example.
    """
    schema = TypeAdapter(hint).json_schema(mode="serialization")
    return _example_in(schema, schema.get("$defs", {}))


def _example_in(schema: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    match schema:
        case {"examples": [example, *_]} | {"default": example} | {"const": example} | {"enum": [example, *_]}:
            return example
        case {"$ref": reference}:
            return _example_in(models[reference.rpartition("/")[2]], models)
        case {"anyOf": [kind, *_]}:  # a nullable field: its type, followed by null
            return _example_in(kind, models) if "examples" in kind or "$ref" in kind else None
        case {"type": "object", "properties": fields}:
            shown = {
                *schema.get("required", ()),
                *(name for name, field in fields.items() if field.keys() & {"examples", "default"}),
            }
            return {name: _example_in(field, models) for name, field in fields.items() if name in shown}
        case {"type": "array", "items": items}:
            return [_example_in(items, models)]
        case {"type": "string", "format": "date-time"}:
            return "2026-11-20T08:00:00Z"
        case {"type": "boolean"}:
            return True
        case {"type": "null"}:
            return None
    raise TypeError(f"{schema} has no example")


def _typical_error(kind: type[WxAuthError]) -> WxAuthError:
    if kind in _TYPICAL:
        return _TYPICAL[kind]
    first_line = (kind.__doc__ or "").partition("\n")[0]
    return kind(first_line.rstrip("."))


def cacheable_response(
    request: Request, content: bytes, *, etag: str, headers: Mapping[str, str], media_type: str
) -> Response:
    """Return a response with its `ETag`, which includes the quotation marks.

    If `If-None-Match` contains this `ETag`, or `*`, return status 304 instead (RFC 9110, section 13.1.2).
    """
    headers = {**headers, "ETag": etag}
    cached_etags = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in cached_etags or "*" in cached_etags:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
