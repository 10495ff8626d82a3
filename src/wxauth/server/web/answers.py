"""The documented answers of an operation: an example built from its fields, and every failure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NotRequired, Union, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from typing_extensions import get_type_hints, is_typeddict

from wxauth.errors import (
    AccountLeaving,
    CodeUsed,
    InternalError,
    InvalidCode,
    InvalidRequest,
    InvalidToken,
    KeysUnavailable,
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
from wxauth.guard import BearerGuard
from wxauth.problems import problem_document

Failure = type[WxAuthError] | WxAuthError
"""A failure that an operation may answer: an error, or a class, of which a typical error is shown."""
Security = Sequence[Mapping[str, Sequence[str]]]
"""OpenAPI's `security` of an operation: alternatives, of which `{}` means no credentials."""

BEARER: Final[Security] = ({BearerGuard.scheme_name: ()},)

PROBLEM_REF: Final = "#/components/schemas/Problem"


@dataclass(frozen=True, slots=True)
class Entails:
    """The documentation that a parameter adds to each operation with it. Put it into the parameter's `Annotated`."""

    failures: Sequence[Failure] = ()
    security: Security = ()


GUARDED: Final[Sequence[Failure]] = (
    InvalidRequest("there are two Authorization headers", status=400),
    MissingToken,
    InvalidToken,
    TokenExpired,
    KeysUnavailable,
    StorageUnavailable,
)
"""The failures of every guarded operation."""

WECHAT_FAILURES: Final[Sequence[Failure]] = (
    WeChatRateLimited,
    WeChatBadResponse,
    WeChatMisconfigured,
    WeChatUnavailable,
    WeChatTimeout,
)
"""The failures of every operation that calls WeChat."""

_TYPICAL: Final[Mapping[type[WxAuthError], WxAuthError]] = {
    InvalidRequest: InvalidRequest.of("code", "Field required"),
    InvalidCode: InvalidCode(
        "WeChat answered errcode 40029: the code is invalid, has expired, or is another app's", errcode=40029
    ),
    CodeUsed: CodeUsed("WeChat answered errcode 40163: the code has been used", errcode=40163),
    AccountLeaving: AccountLeaving(datetime(2026, 11, 27, 8, tzinfo=UTC)),
    WeChatMisconfigured: WeChatMisconfigured(
        "WeChat answered errcode 40164: this server's address is not on the IP whitelist", errcode=40164
    ),
}


class Problem(BaseModel):
    """A failure (RFC 9457)."""

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
    errors: Annotated[list[dict[str, str]] | None, Field(description="For `invalid_request`: field and message.")] = (
        None
    )


def failures_of(*kinds: Failure) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses`: each status, with an example for each code."""
    examples: dict[int, dict[str, Any]] = defaultdict(dict)
    for kind in (*kinds, InternalError):
        error = kind if isinstance(kind, WxAuthError) else _error(kind)
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


def example_of(hint: Any) -> Any:
    """An example of an answer, built from those of its fields: `Field(examples=[...])`.

    An optional field is left out unless it has an example. A nullable field is null unless it has one.

    Raises: TypeError, if a field has no example.
    """
    explicit = _examples_in(hint)
    if explicit:
        return explicit[0]
    kind = get_origin(hint)
    if kind in (Annotated, NotRequired):
        return example_of(get_args(hint)[0])
    if is_typeddict(hint):
        fields = get_type_hints(hint, include_extras=True)
        return {
            name: example_of(field)
            for name, field in fields.items()
            if not _may_be_absent(field) or _examples_in(field)
        }
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return {name: _example_of_field(field) for name, field in hint.model_fields.items() if not field.exclude}
    if kind is list:
        return [example_of(get_args(hint)[0])]
    if kind is Literal:
        return get_args(hint)[0]
    if kind in (UnionType, Union):
        return _example_unless_null(get_args(hint))
    if hint is NoneType:
        return None
    if hint is datetime:
        return "2026-11-20T08:00:00Z"
    if hint is bool:
        return True
    raise TypeError(f"{hint} has no example")


def _example_of_field(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    return example_of(field.annotation) if field.is_required() else field.get_default(call_default_factory=True)


def _may_be_absent(hint: Any) -> bool:
    origin: Any = get_origin(hint)
    return origin is NotRequired


def _examples_in(hint: Any) -> Sequence[Any]:
    if _may_be_absent(hint):
        return _examples_in(get_args(hint)[0])
    if get_origin(hint) is not Annotated:
        return ()
    kind, *metadata = get_args(hint)
    given = [meta.examples for meta in metadata if isinstance(meta, FieldInfo) and meta.examples]
    return given[-1] if given else _examples_in(kind)


def _example_unless_null(kinds: Sequence[Any]) -> Any:
    first = next(kind for kind in kinds if kind is not NoneType)
    return example_of(first) if is_typeddict(first) or _examples_in(first) else None


def _error(kind: type[WxAuthError]) -> WxAuthError:
    return _TYPICAL.get(kind) or kind((kind.__doc__ or "").partition("\n")[0].rstrip("."))
