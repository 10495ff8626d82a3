"""The documentation in Chinese: its description, and a summary of each operation."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

from starlette.routing import BaseRoute

from wxauth.server.web.direct import DirectRoute

DESCRIPTION: Final = """
微信小程序登录：提交 `wx.login` 的 code，得到令牌；之后以 `Authorization: Bearer` 携带。

失败时返回 `application/problem+json`（RFC 9457）：程序看 `code`，提示用户用 `title`。
"""
SUMMARIES: Final[Mapping[str, str]] = {
    # login
    "Log in with a wx.login code": "用 wx.login 的 code 登录",
    "Exchange a refresh token for a new pair": "用刷新令牌换取新的一对令牌",
    "End a session": "结束会话",
    # me
    "Who am I": "查看我的资料",
    "Change my profile": "修改我的资料",
    "Change my profile, where PATCH cannot be sent": "修改我的资料（无法发送 PATCH 时）",
    "Erase my account": "注销我的账号",
    "Bind my phone number": "绑定我的手机号",
    "Open encryptedData": "解密 encryptedData",
    "Where am I logged in": "查看已登录的设备",
    "Log out everywhere else": "下线其他所有设备",
    "Log out on one device": "下线某台设备",
    "Upload my picture": "上传我的头像",
    "A user's picture": "用户头像",
    "Take my data along": "导出我的数据",
    "Agree": "同意协议",
    "Agree no longer": "撤回同意",
    "What have I agreed to": "查看我同意过的协议",
    # admin
    "Find users": "查找用户",
    "Read a user": "查看用户",
    "Ban, unban, set roles": "封禁、解封、设置角色",
    "Erase a user": "删除用户",
    "Log a user out everywhere": "下线用户的所有设备",
    "Log a user out on one device": "下线用户的某台设备",
    "Merge a user into another one": "将用户合并到另一用户",
    "Read the audit trail": "查看审计记录",
    "List webhooks": "查看 Webhook",
    "Add a webhook": "添加 Webhook",
    "Read a webhook": "查看某个 Webhook",
    "Change, enable or disable a webhook": "修改、启用或停用 Webhook",
    "Remove a webhook": "删除 Webhook",
    "Try a webhook out": "测试 Webhook",
    "Renew a webhook's secret": "更换 Webhook 的密钥",
    "List deliveries": "查看投递记录",
    "Deliver events once more": "重新投递事件",
    "Read what has happened on each day": "查看每日统计",
    "Does WeChat still take the session keys": "检查 session_key 是否仍有效",
    "Have WeChat replace the session keys": "让微信更换 session_key",
    "Hand a person's data over": "导出用户的数据",
    "List the service clients": "列出服务客户端",
    "Add a service client": "添加服务客户端",
    "Change a service client": "修改服务客户端",
    "Remove a service client": "移除服务客户端",
    "Give a service client another secret": "更换服务客户端的密钥",
    "List the apps": "列出小程序",
    "Read an app": "查看小程序",
    "Add an app": "添加小程序",
    "Change an app": "修改小程序",
    "Remove an app": "移除小程序",
    "Say what is wrong with an app": "检查小程序的配置",
    "Say what is wrong, and what to do": "检查整个服务的配置",
    "List the signing keys": "列出签名密钥",
    "Publish a new key, to sign next": "发布新的签名密钥",
    "Take a key back at once": "立即撤回签名密钥",
    # keys
    "Public signing keys": "签名公钥",
    "Authorization server metadata": "授权服务器元数据",
    "Metadata, where OpenID Connect looks for it": "元数据（OpenID Connect 的路径）",
    # operations
    "Alive": "存活检查",
    "Able to serve": "就绪检查",
    "What Prometheus reads": "供 Prometheus 采集的指标",
    # siblings
    "May this request pass (forward-auth)": "校验请求（供反向代理调用）",
    "Is this access token good (RFC 7662)": "检查访问令牌（RFC 7662）",
    "The app's WeChat access token": "小程序的微信 access_token",
    "Look a user up": "查询用户",
    "Look many users up": "批量查询用户",
    "Read the feed of events": "读取事件流",
    # websites
    "Log in to a site (OpenID Connect)": "登录网站（OpenID Connect）",
    "Log in to a site, asked by a form": "登录网站（以表单请求）",
    "Log in to the site": "登录该网站",
    "Refuse the site": "拒绝该网站",
    "Who is logged in (OpenID Connect)": "查看登录的用户（OpenID Connect）",
    "Who is logged in, asked by POST (OpenID Connect)": "查看登录的用户（OpenID Connect，POST 方式）",
    "Log out (OpenID Connect RP-Initiated Logout)": "退出登录（OpenID Connect RP-Initiated Logout）",
    "Exchange what a site has for tokens (RFC 6749)": "网站换取令牌（RFC 6749）",
    "End the session of a token (RFC 7009)": "结束令牌所属的会话（RFC 7009）",
    "Start a scan (RFC 8628)": "发起扫码（RFC 8628）",
    "Where a code is scanned or typed": "扫码或输入代码的说明页",
    "The picture of a scan": "二维码图片",
    "Claim a code that was scanned": "认领扫到的码",
    "A code that something other than WeChat has scanned": "用其他应用扫码时的提示页",
    # wechat
    "Is this URL the app's own (asked by WeChat)": "确认推送地址（由微信调用）",
    "Take a message from WeChat": "接收微信推送的消息",
}
"""The Chinese summaries, by the English ones. A summary that is missing here stays in English."""


def in_chinese(document: Mapping[str, Any], routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """An OpenAPI document with its summaries and its description in Chinese. Everything else stays."""
    translated = deepcopy(dict(document))
    translated["info"]["description"] = DESCRIPTION
    for route in routes:
        if isinstance(route, DirectRoute) and route.include_in_schema and route.title is not None:
            for method in route.methods or ():
                translated["paths"][route.path_format][method.lower()]["summary"] = route.title.zh
    for operations in translated["paths"].values():
        for operation in operations.values():
            summary = operation.get("summary", "")
            operation["summary"] = SUMMARIES.get(summary, summary)
    return translated
