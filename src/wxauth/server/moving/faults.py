"""The faults of a line of an import: the field, and its requirements. They never contain the line's own text."""

from typing import Final, NamedTuple

from wxauth.errors import Title

MAX_LINE: Final = 8 * 1024
"""Maximum bytes of a line without its line break."""


class Fault(NamedTuple):
    """A fault of a line."""

    field: str
    """`line` for the line as a whole."""
    wanted: Title


NOT_JSON: Final = Fault("line", Title("must be a JSON object", "必须是 JSON 对象"))
TOO_LONG: Final = Fault("line", Title(f"must be at most {MAX_LINE} bytes", f"必须不超过 {MAX_LINE} 字节"))
NOT_UTF8: Final = Fault(
    "line", Title("must be UTF-8; --encoding gbk reads GBK", "必须是 UTF-8 编码；加 --encoding gbk 可读取 GBK")
)
NOT_GBK: Final = Fault("line", Title("must be GBK, as --encoding says", "必须是 --encoding 指定的 GBK 编码"))
NOT_CSV: Final = Fault(
    "line",
    Title(
        "must be one line of CSV: each quotation mark closed, and doubled within a cell; no line break in a cell",
        "必须是一整行 CSV：引号须成对，单元格内的引号须写两个，单元格内不能换行",
    ),
)
WRONG_CELLS: Final = Fault("line", Title("must have as many cells as the header", "单元格数必须与表头一致"))
WRONG_ATTRIBUTE: Final = Fault(
    "line",
    Title(
        "must name an attribute by 1 to 32 of a-z, 0-9 and _, beginning with a letter: attributes.NAME",
        "属性列须写作 attributes.名称，名称为 1 至 32 个小写字母、数字或 _，以字母开头",
    ),
)
NO_HEADER: Final = Fault(
    "line",
    Title(
        "must be a header: names of fields, each once, app_id and openid among them"
        " (--app-id gives the app, --map openid=COLUMN another name)",
        "必须是表头：各字段名只出现一次，且包含 app_id 与 openid"
        "（可用 --app-id 指定应用，--map openid=列名 指定其他列名）",
    ),
)

ATTRIBUTES: Final = Fault(
    "attributes",
    Title(
        "must be an object of at most 32 names of a-z, 0-9 and _, nested at most 4 deep, at most 2048 bytes in all",
        "必须是 JSON 对象：至多 32 个由小写字母、数字、_ 组成的名称，嵌套至多 4 层，合计至多 2048 字节",
    ),
)
ADMIN: Final = Fault(
    "roles",
    Title(
        "must be without admin and support, unless --allow-admin is given",
        "不能含 admin 或 support，除非加 --allow-admin",
    ),
)
UNBANNED_ADMIN: Final = Fault(
    "status",
    Title(
        "must leave banned administrators and support staff banned, unless --allow-admin is given",
        "不能解除对管理员与客服的封禁，除非加 --allow-admin",
    ),
)
LAST_ADMIN: Final = Title(
    "must leave an administrator: make another one first", "必须保留至少一名管理员：请先设置另一名"
)
MERGED: Final = Fault("user_id", Title("must not have been merged into another user", "不能是已并入另一用户的 ID"))
ERASED: Final = Fault(
    "user_id", Title("must not have been erased; --restore brings it back", "不能是已注销的用户；加 --restore 可恢复")
)
LEAVING: Final = Fault(
    "user_id",
    Title("must not be of a user who has asked to be erased", "不能属于正在注销的用户"),
)
ANOTHER_USER: Final = Fault(
    "user_id",
    Title(
        "must be the user whom the identity, the unionid or the external_id names",
        "必须与该身份、unionid 或 external_id 所属的用户一致",
    ),
)
SECOND_OPENID: Final = Fault(
    "unionid",
    Title(
        "must be of one openid in this app: WeChat gives each person one, and another one has it",
        "在同一应用中必须只对应一个 openid：微信中每人只有一个，而它已属于另一个 openid",
    ),
)
SECOND_OPENID_OF_EXTERNAL_ID: Final = Fault(
    "external_id",
    Title(
        "must be of one openid in this app: WeChat gives each person one, and the user has another one;"
        " --join accepts both",
        "在同一应用中必须只对应一个 openid：微信中每人只有一个，而该用户已有另一个；加 --join 可都接受",
    ),
)
ANOTHER_UNIONID: Final = Fault(
    "unionid", Title("must be the one that the identity has already", "必须与该身份已有的 unionid 一致")
)
UNIONID_OF_EXTERNAL_ID: Final = Fault(
    "unionid",
    Title(
        "must be the one of the user whom the external_id names: these may be two people; --join makes them one user",
        "必须与 external_id 所属用户的 unionid 一致：二者可能不是同一个人；加 --join 可合为一个用户",
    ),
)
PHONE_OF_EXTERNAL_ID: Final = Fault(
    "phone",
    Title(
        "must not contradict a verified number: the user whom the external_id names has verified another one, or"
        " another user this one; --join makes them one user",
        "不能与已验证的手机号矛盾：external_id 所属用户验证过另一个号码，或另一用户验证过该号码；"
        "加 --join 可合为一个用户",
    ),
)
UNIONID_TAKEN: Final = Fault("unionid", Title("must not be another user's", "不能是另一用户的"))
EXTERNAL_ID_TAKEN: Final = Fault("external_id", Title("must not be another user's", "不能是另一用户的"))
ANOTHER_EXTERNAL_ID: Final = Fault(
    "external_id", Title("must be the one that the user has already", "必须与该用户已有的 external_id 一致")
)
GIVEN_BEFORE: Final = Title(
    "must be as in the earlier line with this openid: remove one of the two lines",
    "必须与前面同一 openid 的行一致：请删去其中一行",
)
FORMER_ID_OF_A_USER: Final = Fault("former_ids", Title("must not be the id of a user", "不能是现有用户的 ID"))
FORMER_ID_ERASED: Final = Fault(
    "former_ids",
    Title("must not have been erased; --restore brings it back", "不能是已注销的用户；加 --restore 可恢复"),
)
FORMER_ID_TAKEN: Final = Fault("former_ids", Title("must not have been merged into another user", "不能已并入另一用户"))
NO_EXTERNAL_ID: Final = Fault(
    "former_external_ids",
    Title("must come with the external_id that took their place", "必须同时有取代它们的 external_id"),
)
FORMER_EXTERNAL_ID_TAKEN: Final = Fault("former_external_ids", Title("must not be another user's", "不能是另一用户的"))
