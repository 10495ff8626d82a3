"""The texts of the pages, in English and Chinese.

The message "away" has the texts `away_title` and `away`; the visit "over" has `visit_over_title` and `visit_over`.
"""

from collections.abc import Mapping
from typing import Final

from wxauth.errors import Title
from wxauth.server.site_logins.granting import PageState
from wxauth.server.site_logins.rows import Mistake

TEXTS: Final[Mapping[str, Title]] = {
    "log_in_to": Title("Log in to {title}", "登录 {title}"),
    "allow": Title("Allow {title}?", "允许 {title}？"),
    "allow_local": Title("Allow a program on this computer?", "允许本机上的程序？"),
    "calls_itself": Title("It calls itself “{title}”.", "自称“{title}”。"),
    "local_program": Title(
        "A program on this computer, which calls itself “{title}”.", "本机上的一个程序，自称“{title}”。"
    ),
    "may_do": Title("It could do this for you at {title}:", "它将可以在“{title}”为您："),
    "elsewhere": Title(
        "Open this address on a computer, or in the phone's browser:", "请在电脑上，或在手机浏览器中打开此地址："
    ),
    "how": Title("Scan this code with WeChat.", "请用微信扫描二维码。"),
    "how_by_app": Title(
        "Scan this code with WeChat. It opens the mini-program “{app}”.", "请用微信扫描二维码，将打开小程序“{app}”。"
    ),
    "picture": Title("The code to scan with WeChat", "用微信扫描的二维码"),
    "typed": Title("Or open the mini-program and type this code:", "或打开小程序，输入此代码："),
    "copy": Title("Copy", "复制"),
    "copied": Title("Copied", "已复制"),
    "back_to": Title("Back to {title}", "返回 {title}"),
    "other_language": Title("中文", "English"),
    "renew": Title("New code", "重新获取"),
    "no_script": Title("Confirm on the phone, then continue here:", "在手机上确认后，点此继续："),
    "go_on": Title("Continue", "继续"),
    "going_back": Title("Back to the site", "返回网站"),
    "type": Title("Open the mini-program in WeChat and type this code:", "请在微信中打开小程序，输入此代码："),
    "type_by_app": Title(
        "Open the mini-program “{app}” in WeChat and type this code:", "请在微信中打开小程序“{app}”，输入此代码："
    ),
    "opens": Title("WeChat opens, and shows a number to type here.", "将打开微信，确认后在这里输入微信显示的数字。"),
    "opens_by_app": Title(
        "The mini-program “{app}” opens in WeChat, and shows a number to type here.",
        "将打开微信小程序“{app}”，确认后在这里输入它显示的数字。",
    ),
    "another_device": Title("Use another device", "使用其他设备"),
    "another_way": Title("Other ways", "其他方式"),
    "another_way_or_device": Title("Another way, or another device", "其他方式或设备"),
    "with_another_device": Title(
        "Open this page on a computer, or scan with another phone:", "在电脑上打开本页，或用另一部手机扫码："
    ),
    "waiting_on_a_phone": Title("Confirm in the mini-program, and come back", "请在小程序中确认后回到本页"),
    "claimed_on_a_phone": Title("Confirm in the mini-program", "请在小程序中确认"),
    "left": Title(", {seconds} s left", "，剩余 {seconds} 秒"),
    "over_on_a_phone": Title("This code has expired", "此代码已失效"),
    "in_mini_program": Title(
        "You are in the mini-program, which logs you in automatically.", "您正在小程序中打开本页，将由小程序自动登录。"
    ),
    "log_in": Title("Log in", "登录"),
    "log_in_by_code": Title("Log in with a code", "用代码登录"),
    "log_in_with_wechat": Title("Log in with WeChat", "微信登录"),
    "by_computer": Title("Log in with WeChat on this device", "在这台设备的微信中登录"),
    "type_number": Title("Then type the number that WeChat shows:", "再输入微信中显示的数字："),
    "number_wrong": Title(
        "This number is not right. It is in the mini-program, in WeChat.", "数字不正确。请查看微信小程序中显示的数字。"
    ),
    "number_missing": Title(
        "Press the button, confirm in WeChat, and come back with the six digits that it shows.",
        "请先点击按钮，在微信中确认，再回到这里输入显示的六位数字。",
    ),
    "go_on_as": Title("Continue as {name}", "以 {name} 的身份继续"),
    "no_name": Title("WeChat user", "微信用户"),
    "another": Title("Use another account", "使用其他账号"),
    "not_you": Title(
        "You have logged in with this browser before. If this is not you, use another account.",
        "您此前已在本浏览器登录。如果这不是您本人，请使用其他账号。",
    ),
    "visit_snapshot_title": Title("One more tap", "还差一步"),
    "visit_snapshot": Title(
        "WeChat shows a preview of this page. Tap “使用完整服务” (use the full service) at the bottom, then try again.",
        "微信正以预览方式展示本页。请点击页面底部的“使用完整服务”，然后重试。",
    ),
    "visit_again_title": Title("WeChat has not confirmed this login", "微信未确认本次登录"),
    "visit_again": Title(
        "It took too long, or was opened twice. Please try again.", "等待过久，或被重复打开。请重试。"
    ),
    "visit_over_title": Title("This login has expired", "本次登录已失效"),
    "visit_over": Title(
        "It has been used, or took too long. Please start again.", "已被使用，或等待过久。请重新开始。"
    ),
    "visit_done_title": Title("You are already logged in", "您已登录"),
    "visit_done": Title("Go back to the site.", "请返回网站。"),
    "visit_gone_title": Title("This login was not started here", "登录不是从这里发起的"),
    "visit_gone": Title(
        "It was started in another browser, or has expired, so nothing has happened. To log in, go back to the "
        "site and start again. If somebody sent you this page, close it.",
        "它由另一浏览器发起，或已失效，因此没有任何变化。如需登录，请回到网站重新开始；如果本页是他人发给您的，请关闭。",
    ),
    "visit_away_title": Title("One moment", "请稍候"),
    "visit_away": Title(
        "The service is busy. Go back to the site and log in again in a few seconds.",
        "服务繁忙，请几秒后回到网站重新登录。",
    ),
    "try_again": Title("Try again", "重试"),
    "warning": Title(
        "Only scan a code that you requested yourself. If somebody sent you this page, close it.",
        "只扫描您自己发起登录的二维码。如果本页是他人发给您的，请关闭。",
    ),
    "warning_on_a_phone": Title("If somebody sent you this page, close it.", "如果本页是他人发给您的，请关闭。"),
    PageState.WAITING: Title("Waiting for the phone", "等待手机扫码"),
    PageState.CLAIMED: Title("Scanned. Confirm on the phone", "已扫码，请在手机上确认"),
    PageState.APPROVED: Title("Done, one moment", "已确认，正在跳转"),
    PageState.DENIED: Title("Refused on the phone", "已在手机上拒绝"),
    PageState.OVER: Title("This code has expired", "二维码已失效"),
    "link_title": Title("Scan this with WeChat", "请用微信扫码"),
    "link": Title(
        "This code is for logging in. Open WeChat, tap “Scan”, and point the camera at it.",
        "这是登录用的二维码。请打开微信“扫一扫”，用相机对准屏幕上的二维码。",
    ),
    "device_title": Title("Log in on another screen", "在其他设备上登录"),
    "device": Title(
        "Open WeChat, tap “Scan”, and point the camera at the code on the other screen; or open the mini-program "
        "and type the code there.",
        "请打开微信“扫一扫”，用相机对准该设备上的二维码；或打开小程序，输入设备上的代码。",
    ),
    Mistake.REQUEST: Title(
        "The request is too long, or has a character that is not allowed.", "请求过长，或含有不允许的字符。"
    ),
    Mistake.CLIENT: Title("No site has this client_id.", "没有此 client_id 对应的网站。"),
    Mistake.REDIRECT_URI: Title(
        "The redirect_uri is not registered for this site.", "redirect_uri 不是该网站登记的地址。"
    ),
    Mistake.DOCUMENT: Title(
        "The description of this program cannot be read, breaks a rule, or is of a host that is not allowed here.",
        "该程序的说明文件无法读取、不合规则，或其主机未获允许。",
    ),
    "mistake_title": Title("This login does not work", "无法登录"),
    "mistake": Title(
        "The fault is in the site, and nothing was sent to it. Please tell its operator:",
        "问题出在网站一方，没有向它发送任何内容。请告知网站的维护者：",
    ),
    "asking_site": Title("Site: {site}", "网站：{site}"),
    "received": Title("Received address: {received}", "收到的地址：{received}"),
    "limited_title": Title("Too many attempts", "请求过于频繁"),
    "limited": Title("Wait a minute, then load this page again.", "请一分钟后重新打开本页。"),
    "used_up_title": Title("Too many attempts", "尝试次数过多"),
    "used_up": Title(
        "This login cannot be tried again. Go back to the site and start again.",
        "本次登录不能再试。请回到网站重新开始。",
    ),
    "away_title": Title("One moment", "请稍候"),
    "away": Title("The service is busy. Load this page again in a few seconds.", "服务繁忙，请几秒后重新打开本页。"),
    "gone_title": Title("Not confirmed", "尚未确认"),
    "gone": Title(
        "Confirm on the phone, then load this page again. If the code has expired or been used, go back to the "
        "site and log in again.",
        "请先在手机上确认，再刷新本页。若二维码已失效或已使用，请回到网站重新登录。",
    ),
    "logged_out_title": Title("You are logged out", "已退出登录"),
    "logged_out": Title("The session of this site has ended.", "该网站的登录已结束。"),
    "logged_out_nowhere_title": Title("You are logged out", "已退出登录"),
    "logged_out_nowhere": Title(
        "The session of this site has ended. The site asked to send you to an address that is not registered.",
        "该网站的登录已结束。网站要求跳转的地址未经登记，因此没有跳转。",
    ),
    "logged_out_of_all_title": Title("You are logged out", "已退出登录"),
    "logged_out_of_all": Title(
        "The login of this browser has ended, with the sessions of all sites that share it.",
        "本浏览器的登录已结束，共享它的所有网站的登录也已结束。",
    ),
    "log_out_title": Title("Log out?", "退出登录？"),
    "log_out": Title(
        "You are logged in as {name}. Logging out ends the sessions of all sites that share this login.",
        "当前登录用户：{name}。退出后，共享本次登录的所有网站都会退出。",
    ),
    "log_out_button": Title("Log out", "退出登录"),
    "nobody_title": Title("Nobody is logged in", "没有登录"),
    "nobody": Title(
        "This browser has no login that sites share. To log out of one site, do so there, or on the phone.",
        "本浏览器没有由网站共享的登录。如需退出某个网站，请在该网站或手机上退出。",
    ),
    "wrong_logout_title": Title("You are still logged in", "未退出登录"),
    "wrong_logout": Title(
        "The site's request to log out is wrong. Log out on the site, or on the phone.",
        "网站的退出请求有误。请在网站或手机上退出。",
    ),
}
