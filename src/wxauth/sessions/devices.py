"""The device that sent a request, with its address, and a description from its User-Agent."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, PlainSerializer

# A client chooses the User-Agent, and a list of sessions describes up to two hundred of them. Therefore, a pattern with
# `(?>…)` searches only from the first occurrence of its first word. A search from each occurrence would take quadratic
# time.
#
# The first matching pattern counts, because other patterns can also match. For example, an iPhone's User-Agent contains
# "like Mac OS X".
_SYSTEMS: Final = (
    (re.compile(r"wechatdevtools"), "WeChat DevTools"),
    (re.compile(r"(?:OpenHarmony|HarmonyOS)[ /]?([\d.]+)?"), "HarmonyOS"),
    (re.compile(r"\A(?>.*?iPad).*? OS ([\d_]+)"), "iPadOS"),
    (re.compile(r"iPhone OS ([\d_]+)"), "iOS"),
    (re.compile(r"Android ([\d.]+)"), "Android"),
    (re.compile(r"X11; Linux"), "Linux"),  # WeChat for Linux also claims to be WindowsWechat
    (re.compile(r"Windows"), "Windows"),
    (re.compile(r"Macintosh|Mac OS X"), "macOS"),
    (re.compile(r"CrOS"), "ChromeOS"),
    (re.compile(r"Linux"), "Linux"),
)
_BROWSERS: Final = (
    (re.compile(r"(?:Edg|EdgA|EdgiOS)/(\d+)"), "Edge"),
    (re.compile(r"OPR/(\d+)"), "Opera"),
    (re.compile(r"(?:Firefox|FxiOS)/(\d+)"), "Firefox"),
    (re.compile(r"(?:Chrome|CriOS)/(\d+)"), "Chrome"),
    (re.compile(r"\A(?>.*?Version/(\d+)).*Safari/"), "Safari"),
)
"""The patterns of browsers.

The first matching one counts, because nearly all browsers also claim to be Chrome and Safari.
"""
_WECHAT: Final = re.compile(r"MicroMessenger/(\d+\.\d+\.\d+)")
_ON_A_COMPUTER: Final = re.compile(r"(?:Windows|Mac)Wechat")
"""The pattern of WeChat on a computer, whose User-Agent always contains the same old version."""


@dataclass(frozen=True, slots=True)
class Device:
    """The device that sent a request."""

    ip: str | None
    user_agent: str | None


def describe_device(user_agent: str | None) -> str | None:
    """Return a description such as `iOS 17.1, WeChat 8.0.44` or `Windows, Edge 141`; None if no pattern matches."""
    text = user_agent or ""
    words = []
    for pattern, system in _SYSTEMS:
        if match := pattern.search(text):
            version = "".join(match.groups("")).replace("_", ".")
            words.append(f"{system} {version}".strip())
            break
    if match := _WECHAT.search(text):
        words.append("WeChat" if _ON_A_COMPUTER.search(text) else f"WeChat {match[1]}")
    elif words[:1] != ["WeChat DevTools"]:
        found = ((pattern.search(text), browser) for pattern, browser in _BROWSERS)
        words += [f"{browser} {match[1]}" for match, browser in found if match][:1]
    return ", ".join(words) or None


DescribedDevice = Annotated[
    str | None, PlainSerializer(describe_device, return_type=str | None), Field(examples=["iOS 17.1, WeChat 8.0.44"])
]
"""The User-Agent of a device. Responses contain the description instead."""
