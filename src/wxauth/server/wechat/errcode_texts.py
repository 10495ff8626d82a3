"""The meaning of each of WeChat's errcodes, and what to do about it, in English and in Chinese.

Source: WeChat server API, the pages of the calls and the table of global return codes.
"""

from typing import Final

from wxauth.errors import Title

SIGNED_CALLS: Final = range(40230, 40241)
"""The app requires signed and encrypted calls, and the signature or encryption is missing or wrong."""

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
_NOT_WHITELISTED: Final = Title("this server's address is not on the IP whitelist", "本服务器的 IP 不在 IP 白名单中")

MEANINGS: Final = {
    -1: Title("WeChat is busy", "系统繁忙"),
    40001: Title("the access token is invalid or not the latest", "access_token 无效或不是最新的"),
    40002: Title("the grant_type is not the right one", "grant_type 不正确"),
    40003: Title("the openid is not one", "openid 无效"),
    40013: Title("the appid is not one", "appid 无效"),
    40014: Title("the access token is not one", "access_token 不合法"),
    40029: Title("the code is invalid, has expired, or is another app's", "code 无效、已过期或属于其他应用"),
    40097: Title("an argument is wrong", "参数错误"),
    40125: Title("the app secret is wrong", "AppSecret 不正确"),
    40129: Title("the scene is not one that the call knows", "scene 不正确"),
    40163: Title("the code has been used", "code 已被使用"),
    40164: _NOT_WHITELISTED,
    40169: Title("the scene is too long or empty, or the body is no JSON", "scene 过长或为空，或请求体不是 JSON"),
    40226: Title("WeChat takes the person for a high risk", "高风险用户，登录被拦截"),
    **dict.fromkeys(SIGNED_CALLS, Title("the app requires signed and encrypted calls", "该应用要求对调用签名并加密")),
    40243: Title("the app secret is frozen", "AppSecret 已被冻结"),
    41001: Title("the access token is missing", "缺少 access_token"),
    41002: Title("the appid is missing", "缺少 appid"),
    41004: Title("the app secret is missing", "缺少 AppSecret"),
    41008: Title("the code is missing", "缺少 code"),
    42001: Title("the access token has expired", "access_token 已过期"),
    42003: Title("the code has expired", "code 已过期"),
    43002: Title("it must be a POST request", "需要 POST 请求"),
    43104: Title("appid and openid do not match", "appid 与 openid 不匹配"),
    44002: Title("the body is empty", "请求体为空"),
    45002: Title("the text is too long", "文本过长"),
    45009: Title("the daily quota is used up", "已达每日调用上限"),
    45011: Title("too often in this minute", "调用太频繁，请稍候再试"),
    47001: Title("the body is not what the call takes", "请求数据格式错误"),
    48001: Title("the account may not use this API", "无此接口权限"),
    50002: Title("the account is restricted", "账号受限"),
    61010: Title("the person has not used the app for two hours", "用户两小时内未访问小程序"),
    87007: Title("the session_key is missing or has expired", "session_key 不存在或已过期"),
    87008: Title("the sig_method is not the right one", "sig_method 不正确"),
    87009: Title("the signature is wrong: the session_key is another one by now", "签名不正确：session_key 已更换"),
    87014: Title("the content is refused", "内容违规"),
    89501: Title("this server's address waits for the administrator's confirmation", "本服务器的 IP 正等待管理员确认"),
    89503: Title("the call waits for the administrator's confirmation", "调用待管理员确认"),
    89506: Title(
        "the administrator has refused this server's address twice: not for 24 hours",
        "管理员已两次拒绝本服务器的 IP，24 小时内不可调用",
    ),
    89507: Title(
        "the administrator has refused this server's address: not for an hour",
        "管理员已拒绝本服务器的 IP，1 小时内不可调用",
    ),
    9410009: Title("the quota of this API is used up", "该接口的额度已用完"),
}
MEANINGS_OF_PHONE_CODES: Final = {
    40003: Title("the openid is not one of this app", "openid 不属于该小程序"),
    40013: Title("the phone code is another mini-program's", "手机号 code 属于其他小程序"),
    40029: Title(
        "the code is not of the phone button (one of wx.login is none), or has expired",
        "不是手机号按钮给出的 code，或已过期（wx.login 的 code 不能换取手机号）",
    ),
    40163: Title("the code of the phone button has been used", "手机号按钮的 code 已被使用"),
    43104: Title("the code of the phone button is another person's", "手机号按钮的 code 属于其他用户"),
}

WHAT_TO_CHANGE: Final = {
    -1: Title("nothing: wait, it is WeChat's", "无需处理：请等待微信恢复"),
    40001: _NOTHING_OF_TOKEN,
    40002: _OUR_REQUEST,
    40003: _NOTHING_OF_PERSON,
    40013: Title(
        "the app id is wrong: check it against WeChat's console (WXAUTH_APP_ID, WXAUTH_APPS, 'wxauth apps list')",
        "AppID 不正确：请与微信后台核对（WXAUTH_APP_ID、WXAUTH_APPS、'wxauth apps list'）",
    ),
    40014: _NOTHING_OF_TOKEN,
    40029: _NOTHING_OF_CODE,
    40097: _OUR_REQUEST,
    40125: Title(
        "the app secret is wrong: copy it anew from WeChat (WXAUTH_APP_SECRET, WXAUTH_APPS, 'wxauth apps set')",
        "AppSecret 不正确：请从微信后台重新复制（WXAUTH_APP_SECRET、WXAUTH_APPS、'wxauth apps set'）",
    ),
    40129: _OUR_REQUEST,
    40163: _NOTHING_OF_CODE,
    42003: _NOTHING_OF_CODE,
    40164: Title(
        f"{_NOT_WHITELISTED.en}: add the address in errmsg in the console",
        f"{_NOT_WHITELISTED.zh}：请在微信后台添加 errmsg 中的 IP",
    ),
    40169: _OUR_REQUEST,
    40226: _NOTHING_OF_PERSON,
    **dict.fromkeys(
        SIGNED_CALLS,
        Title(
            "the app requires signed and encrypted calls, which wxauth does not make: switch off API security "
            "(API 安全) in the console, development settings",
            "该应用要求对调用签名并加密，wxauth 不支持：请在微信后台“开发设置”中关闭“API 安全”",
        ),
    ),
    40243: Title("the app secret is frozen: unfreeze it in the console", "AppSecret 已被冻结：请在微信后台解冻"),
    41001: Title(
        "the access token is missing from the request: a proxy between here and WeChat may cut the query off",
        "请求中缺少 access_token：本机到微信之间的代理可能截去了查询串",
    ),
    41002: Title(
        "the app id is missing from the request: check WXAUTH_APP_ID or WXAUTH_APPS",
        "请求中缺少 AppID：请检查 WXAUTH_APP_ID 或 WXAUTH_APPS",
    ),
    41004: Title(
        "the app secret is missing from the request: check WXAUTH_APP_SECRET or WXAUTH_APPS",
        "请求中缺少 AppSecret：请检查 WXAUTH_APP_SECRET 或 WXAUTH_APPS",
    ),
    41008: Title(
        "the code is missing from the request: a proxy between here and WeChat may cut the query off",
        "请求中缺少 code：本机到微信之间的代理可能截去了查询串",
    ),
    42001: _NOTHING_OF_TOKEN,
    43002: _OUR_REQUEST,
    43104: _NOTHING_OF_PERSON,
    44002: _OUR_REQUEST,
    45002: _NOTHING_OF_PERSON,
    45009: Title(
        "the day's quota is used up, until midnight in Beijing: see who asks so often",
        "当日额度已用完，北京时间零点恢复：请检查是谁在频繁调用",
    ),
    45011: Title("nothing: in a minute WeChat answers again", "无需处理：一分钟后恢复"),
    47001: Title(
        "the account may not take what was sent: for phone numbers, set WXAUTH_PHONE_CHECK_OPENID=false",
        "该账号不接受所发送的内容：若是手机号接口，请设置 WXAUTH_PHONE_CHECK_OPENID=false",
    ),
    48001: Title(
        "the account may not use this API: see its permissions in the console",
        "该账号无此接口权限：请在微信后台查看接口权限",
    ),
    50002: Title("the account is restricted: see the console's notices", "账号受限：请查看微信后台的通知"),
    61010: _NOTHING_OF_PERSON,
    87007: _NOTHING_OF_KEY,
    87008: _OUR_REQUEST,
    87009: _NOTHING_OF_KEY,
    87014: _NOTHING_OF_PERSON,
    89501: _CONFIRM,
    89503: Title(
        "the call waits for the administrator's confirmation: confirm it in WeChat",
        "调用待管理员确认：请管理员在微信中确认",
    ),
    89506: Title(
        "the administrator has refused this server's address twice: add it to the IP whitelist, or ask in 24 hours",
        "管理员已两次拒绝本服务器的 IP：请加入 IP 白名单，或 24 小时后重试",
    ),
    89507: Title(
        "the administrator has refused this server's address: add it to the IP whitelist, or ask in an hour",
        "管理员已拒绝本服务器的 IP：请加入 IP 白名单，或 1 小时后重试",
    ),
    9410009: Title(
        "the quota of this API is used up: buy more of it in the console, or see who asks so often",
        "该接口的额度已用完：请在微信后台购买，或检查是谁在频繁调用",
    ),
}
SECRET_NOT_TAKEN: Final = WHAT_TO_CHANGE[40125]
TOKENS_NOT_TAKEN: Final = Title(
    "WeChat refuses the access token, a new one too: see that nobody else renews it, and the app secret",
    "微信拒绝 access_token，更新后仍然如此：请确认没有别处在更新它，并检查 AppSecret",
)
OTHER_APP_OF_PHONE_CODE: Final = Title(
    "the phone code is of another mini-program than the login: they must be of one app",
    "手机号 code 与登录来自不同的小程序：两者必须相同",
)
UNKNOWN_SCAN_ENV: Final = Title(
    "WXAUTH_SCAN_ENV is a version that WeChat does not know of this app",
    "该小程序没有 WXAUTH_SCAN_ENV 所指的版本",
)
NO_SCAN_PAGE: Final = Title(
    "the page WXAUTH_SCAN_PAGE is not in the version WXAUTH_SCAN_ENV: publish it",
    "WXAUTH_SCAN_ENV 所指的版本中没有 WXAUTH_SCAN_PAGE 页面：请先发布",
)
