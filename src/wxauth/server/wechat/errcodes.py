"""WeChat's errcodes, one row each: the meaning, what an operator should do, and the error of ours that it becomes.

Source: WeChat server API, the pages of the calls and the table of global return codes.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from wxauth.errors import (
    CodeUsed,
    InvalidCode,
    SessionKeyExpired,
    Title,
    WeChatBadResponse,
    WeChatError,
    WeChatMisconfigured,
    WeChatRateLimited,
    WeChatTimeout,
    WeChatUnavailable,
    WeChatUserBlocked,
)
from wxauth.problems import Language

CODE2SESSION: Final = "code2session"
OAUTH_CODE: Final = "access_token"
"""`/sns/oauth2/access_token`: exchanges the codes of apps that are not mini-programs."""
STABLE_TOKEN: Final = "stable_token"  # noqa: S105 - the name of an API
PHONE_NUMBER: Final = "getuserphonenumber"
CHECK_SESSION_KEY: Final = "checksession"
RESET_SESSION_KEY: Final = "resetusersessionkey"
RISK_RANK: Final = "getuserriskrank"
CHECK_TEXT: Final = "msg_sec_check"
CHECK_PICTURE: Final = "media_check_async"
MINI_PROGRAM_CODE: Final = "getwxacodeunlimit"
URL_LINK: Final = "generate_urllink"
QUOTA: Final = "quota_get"
RID: Final = "rid_get"
CLEAR_QUOTA: Final = "clear_quota"

SYSTEM_BUSY: Final = -1
"""The only errcode after which WeChat asks to retry."""
NOT_LATEST: Final = 40001
WECHAT_TOKEN_REFUSED: Final = frozenset({NOT_LATEST, 40014, 42001})
"""The WeChat token is no longer valid. WeChat has not executed the request."""
NOT_SEEN_LATELY: Final = 61010
"""The person has not used the app for two hours, so WeChat does not rate them."""
SESSION_KEY_GONE: Final = frozenset({87007, 87009})
"""The session_key is missing, has expired, or has been replaced."""
DAILY_QUOTA: Final = 45009
OF_ANOTHER_PERSON: Final = frozenset({40003, 43104})
"""A phone code belongs to another person, or the openid is not of this app."""

_EXCHANGES: Final = frozenset({CODE2SESSION, OAUTH_CODE})
_SIGNED_CALLS: Final = range(40230, 40241)
"""The app requires signed and encrypted calls, and the signature or encryption is missing or wrong."""
_DAILY_QUOTA_RETRY_AFTER: Final = 3600

_OUR_REQUEST: Final = Title(
    "the request did not arrive as it was sent: see which proxy between here and WeChat changes it",
    "请求在途中被改动：请检查本机到微信之间的代理",
)
_NOTHING_OF_PERSON: Final = Title(
    "nothing: it is about this person, not the service", "无需处理：与该用户有关，与服务无关"
)
_NOTHING_OF_CODE: Final = Title(
    "nothing, if now and then; if always, the phone's app is not the app of the request",
    "偶尔出现无需处理；若总是如此，说明手机上的应用与请求中的不是同一个",
)
_NOTHING_OF_TOKEN: Final = Title(
    "nothing: wxauth renews the access token; if it comes again, something else renews tokens of this app",
    "无需处理：wxauth 会更新 access_token；若反复出现，说明还有别处在更新该应用的 access_token",
)
_NOTHING_OF_KEY: Final = Title(
    "nothing: the next login brings a new session_key", "无需处理：下次登录会得到新的 session_key"
)
_CONFIRM: Final = Title(
    "the administrator of the app has to confirm this server's address: see their WeChat, or the console",
    "需由应用的管理员在微信或微信后台中确认本服务器的 IP",
)
_NOT_THE_LATEST: Final = Title("the access token is invalid or not the latest", "access_token 无效或不是最新的")
SECRET_NOT_TAKEN: Final = Title(
    "the app secret is wrong: copy it anew from WeChat (WXAUTH_APP_SECRET, WXAUTH_APPS, 'wxauth apps set')",
    "AppSecret 不正确：请从微信后台重新复制（WXAUTH_APP_SECRET、WXAUTH_APPS、'wxauth apps set'）",
)


@dataclass(frozen=True, slots=True)
class Errcode:
    """An errcode."""

    number: int
    meaning: Title | None
    remedy: Title
    """What an operator should do."""
    error: type[WeChatError] = WeChatBadResponse
    """WeChatMisconfigured: WeChat's class C, which the operator must fix."""
    retry_after: int | None = None
    """Seconds."""
    at: Collection[str] | None = None
    """The APIs of which the row speaks; None: all others."""
    is_for_the_operator: bool = False
    """Whether WeChat refuses all calls of the app until the operator does something, though the error does not tell."""


ERRCODES: Final = (
    Errcode(
        -1,
        Title("WeChat is busy", "系统繁忙"),
        Title("nothing: wait, it is WeChat's", "无需处理：请等待微信恢复"),
        WeChatUnavailable,
    ),
    Errcode(
        40001,
        _NOT_THE_LATEST,
        SECRET_NOT_TAKEN,
        at=_EXCHANGES,
        is_for_the_operator=True,
    ),
    Errcode(
        40001,
        _NOT_THE_LATEST,
        SECRET_NOT_TAKEN,
        WeChatMisconfigured,
        at={STABLE_TOKEN},
    ),
    Errcode(
        40001,
        _NOT_THE_LATEST,
        Title(
            "WeChat refuses the access token, a new one too: see that nobody else renews it, and the app secret",
            "微信拒绝 access_token，更新后仍然如此：请确认没有别处在更新它，并检查 AppSecret",
        ),
        WeChatMisconfigured,
    ),
    Errcode(
        40002,
        Title("the account may have no URL Link", "该账号无权生成 URL Link"),
        Title(
            "a personal account may have no URL Link: set WXAUTH_SCAN_LINK=off",
            "个人主体的小程序不能生成 URL Link：请设置 WXAUTH_SCAN_LINK=off",
        ),
        WeChatMisconfigured,
        at={URL_LINK},
    ),
    Errcode(40002, Title("the grant_type is not the right one", "grant_type 不正确"), _OUR_REQUEST),
    Errcode(
        40003,
        Title("the openid is not one of this app", "openid 不属于该小程序"),
        _NOTHING_OF_PERSON,
        InvalidCode,
        at={PHONE_NUMBER},
    ),
    Errcode(40003, Title("the openid is not one", "openid 无效"), _NOTHING_OF_PERSON),
    Errcode(
        40013,
        Title("the phone code is another mini-program's", "手机号 code 属于其他小程序"),
        Title(
            "the phone code is of another mini-program than the login: they must be of one app",
            "手机号 code 与登录来自不同的小程序：两者必须相同",
        ),
        WeChatMisconfigured,
        at={PHONE_NUMBER},
    ),
    Errcode(
        40013,
        Title("the appid is not one", "appid 无效"),
        Title(
            "the app id is wrong: check it against WeChat's console (WXAUTH_APP_ID, WXAUTH_APPS, 'wxauth apps list')",
            "AppID 不正确：请与微信后台核对（WXAUTH_APP_ID、WXAUTH_APPS、'wxauth apps list'）",
        ),
        WeChatMisconfigured,
    ),
    Errcode(40014, Title("the access token is not one", "access_token 不合法"), _NOTHING_OF_TOKEN),
    Errcode(
        40029,
        Title(
            "the code is not of the phone button (one of wx.login is none), or has expired",
            "不是手机号按钮给出的 code，或已过期（wx.login 的 code 不能换取手机号）",
        ),
        _NOTHING_OF_CODE,
        InvalidCode,
        at={PHONE_NUMBER},
    ),
    Errcode(
        40029,
        Title("the code is invalid, has expired, or is another app's", "code 无效、已过期或属于其他应用"),
        _NOTHING_OF_CODE,
        InvalidCode,
    ),
    Errcode(
        40097,
        Title("an argument is wrong", "参数错误"),
        Title(
            "WXAUTH_SCAN_ENV is a version that WeChat does not know of this app",
            "该小程序没有 WXAUTH_SCAN_ENV 所指的版本",
        ),
        WeChatMisconfigured,
        at={MINI_PROGRAM_CODE, URL_LINK},
    ),
    Errcode(40097, Title("an argument is wrong", "参数错误"), _OUR_REQUEST),
    Errcode(40125, Title("the app secret is wrong", "AppSecret 不正确"), SECRET_NOT_TAKEN, WeChatMisconfigured),
    Errcode(40129, Title("the scene is not one that the call knows", "scene 不正确"), _OUR_REQUEST),
    Errcode(
        40163,
        Title("the code of the phone button has been used", "手机号按钮的 code 已被使用"),
        _NOTHING_OF_CODE,
        CodeUsed,
        at={PHONE_NUMBER},
    ),
    Errcode(40163, Title("the code has been used", "code 已被使用"), _NOTHING_OF_CODE, CodeUsed),
    Errcode(
        40164,
        Title("this server's address is not on the IP whitelist", "本服务器的 IP 不在 IP 白名单中"),
        Title(
            "this server's address is not on the IP whitelist: add the address in errmsg in the console",
            "本服务器的 IP 不在 IP 白名单中：请在微信后台添加 errmsg 中的 IP",
        ),
        WeChatMisconfigured,
    ),
    Errcode(
        40165,
        Title("the page of the link is not a published one", "链接的页面未发布"),
        Title(
            "the page WXAUTH_SCAN_PAGE is not in the version WXAUTH_SCAN_ENV: publish it",
            "WXAUTH_SCAN_ENV 所指的版本中没有 WXAUTH_SCAN_PAGE 页面：请先发布",
        ),
        WeChatMisconfigured,
        at={URL_LINK},
    ),
    Errcode(
        40169,
        Title("the scene is too long or empty, or the body is no JSON", "scene 过长或为空，或请求体不是 JSON"),
        _OUR_REQUEST,
    ),
    Errcode(40212, Title("the query of the link is wrong", "链接的 query 不正确"), _OUR_REQUEST, at={URL_LINK}),
    Errcode(
        40226,
        Title("WeChat takes the person for a high risk", "高风险用户，登录被拦截"),
        _NOTHING_OF_PERSON,
        WeChatUserBlocked,
    ),
    *(
        Errcode(
            errcode,
            Title("the app requires signed and encrypted calls", "该应用要求对调用签名并加密"),
            Title(
                "the app requires signed and encrypted calls, which wxauth does not make: switch off API security "
                "(API 安全) in the console, development settings",
                "该应用要求对调用签名并加密，wxauth 不支持：请在微信后台“开发设置”中关闭“API 安全”",
            ),
            is_for_the_operator=True,
        )
        for errcode in _SIGNED_CALLS
    ),
    Errcode(
        40243,
        Title("the app secret is frozen", "AppSecret 已被冻结"),
        Title("the app secret is frozen: unfreeze it in the console", "AppSecret 已被冻结：请在微信后台解冻"),
        WeChatMisconfigured,
    ),
    Errcode(
        41001,
        Title("the access token is missing", "缺少 access_token"),
        Title(
            "the access token is missing from the request: a proxy between here and WeChat may cut the query off",
            "请求中缺少 access_token：本机到微信之间的代理可能截去了查询串",
        ),
        WeChatMisconfigured,
    ),
    Errcode(
        41002,
        Title("the appid is missing", "缺少 appid"),
        Title(
            "the app id is missing from the request: check WXAUTH_APP_ID or WXAUTH_APPS",
            "请求中缺少 AppID：请检查 WXAUTH_APP_ID 或 WXAUTH_APPS",
        ),
        WeChatMisconfigured,
    ),
    Errcode(
        41004,
        Title("the app secret is missing", "缺少 AppSecret"),
        Title(
            "the app secret is missing from the request: check WXAUTH_APP_SECRET or WXAUTH_APPS",
            "请求中缺少 AppSecret：请检查 WXAUTH_APP_SECRET 或 WXAUTH_APPS",
        ),
        WeChatMisconfigured,
    ),
    Errcode(
        41008,
        Title("the code is missing", "缺少 code"),
        Title(
            "the code is missing from the request: a proxy between here and WeChat may cut the query off",
            "请求中缺少 code：本机到微信之间的代理可能截去了查询串",
        ),
        WeChatMisconfigured,
    ),
    Errcode(42001, Title("the access token has expired", "access_token 已过期"), _NOTHING_OF_TOKEN),
    Errcode(42003, Title("the code has expired", "code 已过期"), _NOTHING_OF_CODE, InvalidCode, at={OAUTH_CODE}),
    Errcode(42003, Title("the code has expired", "code 已过期"), _NOTHING_OF_CODE),
    Errcode(43002, Title("it must be a POST request", "需要 POST 请求"), _OUR_REQUEST),
    Errcode(
        43104,
        Title("the code of the phone button is another person's", "手机号按钮的 code 属于其他用户"),
        _NOTHING_OF_PERSON,
        InvalidCode,
        at={PHONE_NUMBER},
    ),
    Errcode(43104, Title("appid and openid do not match", "appid 与 openid 不匹配"), _NOTHING_OF_PERSON),
    Errcode(44002, Title("the body is empty", "请求体为空"), _OUR_REQUEST),
    Errcode(45002, Title("the text is too long", "文本过长"), _NOTHING_OF_PERSON),
    Errcode(
        45009,
        Title("the daily quota is used up", "已达每日调用上限"),
        Title(
            "the day's quota is used up, until midnight in Beijing: see who asks so often",
            "当日额度已用完，北京时间零点恢复：请检查是谁在频繁调用",
        ),
        WeChatRateLimited,
        at={MINI_PROGRAM_CODE},
    ),
    Errcode(
        45009,
        Title("the daily quota is used up", "已达每日调用上限"),
        Title(
            "the day's quota is used up, until midnight in Beijing: see who else makes links for this app",
            "当日额度已用完，北京时间零点恢复：请检查还有谁在为该应用生成链接",
        ),
        WeChatMisconfigured,
        at={URL_LINK},
    ),
    Errcode(
        45009,
        Title("the daily quota is used up", "已达每日调用上限"),
        Title(
            "the day's quota is used up, until midnight in Beijing: see who asks so often",
            "当日额度已用完，北京时间零点恢复：请检查是谁在频繁调用",
        ),
        WeChatRateLimited,
        retry_after=_DAILY_QUOTA_RETRY_AFTER,
    ),
    Errcode(
        45011,
        Title("too often in this minute", "调用太频繁，请稍候再试"),
        Title("nothing: in a minute WeChat answers again", "无需处理：一分钟后恢复"),
        WeChatRateLimited,
    ),
    Errcode(
        47001,
        Title("the body is not what the call takes", "请求数据格式错误"),
        Title(
            "the account may not take what was sent: for phone numbers, set WXAUTH_PHONE_CHECK_OPENID=false",
            "该账号不接受所发送的内容：若是手机号接口，请设置 WXAUTH_PHONE_CHECK_OPENID=false",
        ),
    ),
    Errcode(
        48006,
        Title("the quota was cleared ten times in this month", "本月清零次数已用完（每月 10 次）"),
        Title("wait until the next month, or ask WeChat for a higher quota", "请等到下月，或向微信申请提高额度"),
        WeChatRateLimited,
        at={CLEAR_QUOTA},
    ),
    Errcode(
        48001,
        Title("the account may not use this API", "无此接口权限"),
        Title(
            "the account may not use this API: see its permissions in the console",
            "该账号无此接口权限：请在微信后台查看接口权限",
        ),
        WeChatMisconfigured,
    ),
    Errcode(
        50002,
        Title("the account is restricted", "账号受限"),
        Title("the account is restricted: see the console's notices", "账号受限：请查看微信后台的通知"),
        WeChatMisconfigured,
    ),
    Errcode(
        61010, Title("the person has not used the app for two hours", "用户两小时内未访问小程序"), _NOTHING_OF_PERSON
    ),
    Errcode(
        76003,
        Title("the rid is another account's", "rid 不属于该账号"),
        Title("give the rid of an answer to this app, of the last seven days", "请使用该应用最近 7 天内的响应中的 rid"),
        at={RID},
    ),
    Errcode(
        85079,
        Title("the mini-program is not released", "小程序未发布"),
        Title(
            "the mini-program has no released version: release it, or set WXAUTH_SCAN_ENV",
            "小程序没有正式版：请先发布，或设置 WXAUTH_SCAN_ENV",
        ),
        WeChatMisconfigured,
        at={URL_LINK},
    ),
    Errcode(
        87007,
        Title("the session_key is missing or has expired", "session_key 不存在或已过期"),
        _NOTHING_OF_KEY,
        at=_EXCHANGES,
    ),
    Errcode(
        87007,
        Title("the session_key is missing or has expired", "session_key 不存在或已过期"),
        _NOTHING_OF_KEY,
        SessionKeyExpired,
    ),
    Errcode(87008, Title("the sig_method is not the right one", "sig_method 不正确"), _OUR_REQUEST),
    Errcode(
        87009,
        Title("the signature is wrong: the session_key is another one by now", "签名不正确：session_key 已更换"),
        _NOTHING_OF_KEY,
        at=_EXCHANGES,
    ),
    Errcode(
        87009,
        Title("the signature is wrong: the session_key is another one by now", "签名不正确：session_key 已更换"),
        _NOTHING_OF_KEY,
        SessionKeyExpired,
    ),
    Errcode(87014, Title("the content is refused", "内容违规"), _NOTHING_OF_PERSON),
    Errcode(
        89501,
        Title("this server's address waits for the administrator's confirmation", "本服务器的 IP 正等待管理员确认"),
        _CONFIRM,
        is_for_the_operator=True,
    ),
    Errcode(
        89503,
        Title("the call waits for the administrator's confirmation", "调用待管理员确认"),
        Title(
            "the call waits for the administrator's confirmation: confirm it in WeChat",
            "调用待管理员确认：请管理员在微信中确认",
        ),
        WeChatMisconfigured,
    ),
    Errcode(
        89506,
        Title(
            "the administrator has refused this server's address twice: not for 24 hours",
            "管理员已两次拒绝本服务器的 IP，24 小时内不可调用",
        ),
        Title(
            "the administrator has refused this server's address twice: add it to the IP whitelist, or ask in 24 hours",
            "管理员已两次拒绝本服务器的 IP：请加入 IP 白名单，或 24 小时后重试",
        ),
        is_for_the_operator=True,
    ),
    Errcode(
        89507,
        Title(
            "the administrator has refused this server's address: not for an hour",
            "管理员已拒绝本服务器的 IP，1 小时内不可调用",
        ),
        Title(
            "the administrator has refused this server's address: add it to the IP whitelist, or ask in an hour",
            "管理员已拒绝本服务器的 IP：请加入 IP 白名单，或 1 小时后重试",
        ),
        is_for_the_operator=True,
    ),
    Errcode(
        9410009,
        Title("the quota of this API is used up", "该接口的额度已用完"),
        Title(
            "the quota of this API is used up: buy more of it in the console, or see who asks so often",
            "该接口的额度已用完：请在微信后台购买，或检查是谁在频繁调用",
        ),
        at=_EXCHANGES,
    ),
    Errcode(
        9410009,
        Title("the quota of this API is used up", "该接口的额度已用完"),
        Title(
            "the quota of this API is used up: buy more of it in the console, or see who asks so often",
            "该接口的额度已用完：请在微信后台购买，或检查是谁在频繁调用",
        ),
        WeChatRateLimited,
        retry_after=_DAILY_QUOTA_RETRY_AFTER,
    ),
    Errcode(
        41030,
        None,
        Title(
            "the page WXAUTH_SCAN_PAGE is not in the version WXAUTH_SCAN_ENV: publish it",
            "WXAUTH_SCAN_ENV 所指的版本中没有 WXAUTH_SCAN_PAGE 页面：请先发布",
        ),
        WeChatMisconfigured,
        at={MINI_PROGRAM_CODE},
    ),
)
_ROWS: Final = {(api, row.number): row for row in ERRCODES for api in row.at or (None,)}

FAULTS_OF_WECHAT: Final = (WeChatUnavailable, WeChatTimeout, WeChatBadResponse)
KNOWN_ERRCODES: Final = frozenset(row.number for row in ERRCODES)


def errcode_label(error: Exception | None) -> str:
    """What metrics call WeChat's errcode: those that are not known here are `other`, and an error without is empty."""
    errcode = error.errcode if isinstance(error, WeChatError) else None
    return "" if errcode is None else str(errcode) if errcode in KNOWN_ERRCODES else "other"


def _row_of(errcode: int, api: str) -> Errcode | None:
    return _ROWS.get((api, errcode)) or _ROWS.get((None, errcode))


def error_for(errcode: int, *, api: str, hint: str = "") -> WeChatError:
    """The error for an errcode of this API. Its detail is the meaning, followed by the hint."""
    row = _row_of(errcode, api)
    kind, retry_after = (WeChatBadResponse, None) if row is None else (row.error, row.retry_after)
    means = meaning_of(errcode, api=api)
    details = [f"WeChat answered errcode {errcode}", *([means.en] if means else []), *([hint] if hint else [])]
    return kind(": ".join(details), errcode=errcode, retry_after=retry_after)


def meaning_of(errcode: int, *, api: str) -> Title | None:
    """The meaning of an errcode of this API; None if it is unknown."""
    row = _row_of(errcode, api)
    return None if row is None else row.meaning


def is_for_the_operator(errcode: int, *, api: str) -> bool:
    """Whether the failure lasts until the operator does something."""
    row = _row_of(errcode, api)
    return row is not None and (row.is_for_the_operator or row.error is WeChatMisconfigured)


def what_to_change(errcode: int, *, api: str, language: Language = "en") -> str | None:
    """What to do about an errcode of this API; None if that is unknown."""
    row = _row_of(errcode, api)
    return None if row is None else str(getattr(row.remedy, language))
