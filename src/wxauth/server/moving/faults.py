"""The faults of a line of an import: the field, and its requirements. They never contain the line's own text."""

from typing import Final, NamedTuple

from wxauth.errors import Title as Text

MAX_LINE: Final = 8 * 1024
"""Maximum bytes of a line without its line break."""


class Fault(NamedTuple):
    """A fault of a line."""

    field: str
    """`line` for the line as a whole."""
    wanted: Text


_TIME: Final = Text(
    "must be a time with its offset, like 2026-11-20T08:00:00+08:00", "必须是带时区的时间，如 2026-11-20T08:00:00+08:00"
)
_SHORT: Final = Text("must be 1 to 64 printable characters", "必须是 1 至 64 个可打印字符")

EXPECTED: Final = {
    "app_id": Text("must be the app_id of a configured app", "必须是已配置的小程序的 AppID"),
    "openid": Text(
        "must be as WeChat gives it: 1 to 128 visible ASCII characters, and no placeholder",
        "必须与微信返回的一致：1 至 128 个可见 ASCII 字符，不能是空值占位符",
    ),
    "unionid": Text(
        "must be as WeChat gives it, 24 to 36 of A-Z, a-z, 0-9, _ and -; or empty, without a placeholder",
        "必须与微信返回的一致：24 至 36 个字母、数字、_ 或 -；没有则留空，不能填空值占位符",
    ),
    "user_id": Text("must be a UUIDv7", "必须是 UUIDv7"),
    "external_id": Text(
        "must be text of 1 to 128 printable characters, not a number, and no placeholder such as 0 or a UUID of zeros",
        "必须是 1 至 128 个可打印字符的文本，不能是数字类型，也不能是 0、全零 UUID 之类的空值占位符",
    ),
    "nickname": Text(
        "must be at most 64 characters, without control characters", "必须不超过 64 个字符，且不含控制字符"
    ),
    "avatar_url": Text("must be an https URL of at most 2048 characters", "必须是不超过 2048 个字符的 https 地址"),
    "phone": Text("must be in E.164 form, like +8613800138000", "必须是 E.164 格式，如 +8613800138000"),
    "roles": Text(
        "must be at most 32 names of 1 to 32 of a-z, 0-9, _ and -, each beginning with a letter",
        "必须是至多 32 个角色名，各为 1 至 32 个小写字母、数字、_ 或 -，以字母开头",
    ),
    "status": Text("must be active or disabled", "必须是 active 或 disabled"),
    "ban_reason": Text(
        "must be at most 500 characters, without control characters", "必须不超过 500 个字符，且不含控制字符"
    ),
    "banned_until": _TIME,
    "created_at": _TIME,
    "identity_created_at": _TIME,
    "last_login_at": _TIME,
    "consents": Text(
        "must be a JSON list of objects with document, version and given_at",
        "必须是 JSON 数组，每项含 document、version、given_at",
    ),
    "consents.document": _SHORT,
    "consents.version": _SHORT,
    "consents.given_at": _TIME,
    "consents.withdrawn_at": _TIME,
    "consents.app_id": _SHORT,
    "consents.ip": Text("must be an IP address or network", "必须是 IP 地址或网段"),
    "former_ids": Text("must be a list of UUIDs", "必须是 UUID 的列表"),
    "former_external_ids": Text(
        "must be a list of texts of 1 to 128 printable characters", "必须是文本的列表，每项 1 至 128 个可打印字符"
    ),
}
"""The requirements for each field."""

NOT_JSON: Final = Fault("line", Text("must be a JSON object", "必须是 JSON 对象"))
TOO_LONG: Final = Fault("line", Text(f"must be at most {MAX_LINE} bytes", f"必须不超过 {MAX_LINE} 字节"))
NOT_UTF8: Final = Fault("line", Text("must be UTF-8", "必须是 UTF-8 编码"))
NOT_CSV: Final = Fault(
    "line",
    Text(
        f"must be CSV of at most {MAX_LINE} bytes: each quotation mark closed, and doubled within a cell",
        f"必须是不超过 {MAX_LINE} 字节的 CSV：引号须成对，单元格内的引号须写两个",
    ),
)
WRONG_CELLS: Final = Fault("line", Text("must have as many cells as the header", "单元格数必须与表头一致"))
NO_HEADER: Final = Fault(
    "line",
    Text(
        "must be a header: names of fields, each once, app_id and openid among them",
        "必须是表头：各字段名只出现一次，且包含 app_id 与 openid",
    ),
)

ADMIN: Final = Fault(
    "roles",
    Text(
        "must be without admin and support, unless --allow-admin is given",
        "不能含 admin 或 support，除非加 --allow-admin",
    ),
)
UNBANNED_ADMIN: Final = Fault(
    "status",
    Text(
        "must leave banned administrators and support staff banned, unless --allow-admin is given",
        "不能解除对管理员与客服的封禁，除非加 --allow-admin",
    ),
)
LAST_ADMIN: Final = Text(
    "must leave an administrator: make another one first", "必须保留至少一名管理员：请先设置另一名"
)
MERGED: Final = Fault("user_id", Text("must not have been merged into another user", "不能是已并入另一用户的 ID"))
ERASED: Final = Fault(
    "user_id", Text("must not have been erased; --restore brings it back", "不能是已注销的用户；加 --restore 可恢复")
)
ANOTHER_USER: Final = Fault(
    "user_id",
    Text(
        "must be the user whom the identity, the unionid or the external_id names",
        "必须与该身份、unionid 或 external_id 所属的用户一致",
    ),
)
SECOND_OPENID: Final = Fault(
    "unionid",
    Text(
        "must be of one openid in this app: WeChat gives each person one, and another one has it",
        "在同一小程序中必须只对应一个 openid：微信中每人只有一个，而它已属于另一个 openid",
    ),
)
SECOND_OPENID_OF_EXTERNAL_ID: Final = Fault(
    "external_id",
    Text(
        "must be of one openid in this app: WeChat gives each person one, and the user has another one",
        "在同一小程序中必须只对应一个 openid：微信中每人只有一个，而该用户已有另一个",
    ),
)
ANOTHER_UNIONID: Final = Fault(
    "unionid", Text("must be the one that the identity has already", "必须与该身份已有的 unionid 一致")
)
UNIONID_TAKEN: Final = Fault("unionid", Text("must not be another user's", "不能是另一用户的"))
EXTERNAL_ID_TAKEN: Final = Fault("external_id", Text("must not be another user's", "不能是另一用户的"))
ANOTHER_EXTERNAL_ID: Final = Fault(
    "external_id", Text("must be the one that the user has already", "必须与该用户已有的 external_id 一致")
)
FORMER_ID_OF_A_USER: Final = Fault("former_ids", Text("must not be the id of a user", "不能是现有用户的 ID"))
FORMER_ID_ERASED: Final = Fault(
    "former_ids", Text("must not have been erased; --restore brings it back", "不能是已注销的用户；加 --restore 可恢复")
)
FORMER_ID_TAKEN: Final = Fault("former_ids", Text("must not have been merged into another user", "不能已并入另一用户"))
NO_EXTERNAL_ID: Final = Fault(
    "former_external_ids",
    Text("must come with the external_id that took their place", "必须同时有取代它们的 external_id"),
)
FORMER_EXTERNAL_ID_TAKEN: Final = Fault("former_external_ids", Text("must not be another user's", "不能是另一用户的"))
