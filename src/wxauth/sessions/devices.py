"""The device that sent a request, and the description of a device, which is derived from its User-Agent."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, PlainSerializer

_DEVTOOLS: Final = "WeChat DevTools"
# The first matching pattern counts: an iPhone's User-Agent contains "like Mac OS X". A group matches the version.
# A client chooses the User-Agent, and a list of sessions describes hundreds of them. Therefore, a pattern with `(?>…)`
# searches only from the first occurrence of its first word. A search from each occurrence would take quadratic time.
_SYSTEMS: Final = (
    (re.compile(r"wechatdevtools"), _DEVTOOLS),
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
# The first matching pattern counts, because nearly all browsers also claim to be Chrome and Safari.
_BROWSERS: Final = (
    (re.compile(r"(?:Edg|EdgA|EdgiOS)/(\d+)"), "Edge"),
    (re.compile(r"OPR/(\d+)"), "Opera"),
    (re.compile(r"(?:Firefox|FxiOS)/(\d+)"), "Firefox"),
    (re.compile(r"(?:Chrome|CriOS)/(\d+)"), "Chrome"),
    (re.compile(r"\A(?>.*?Version/(\d+)).*Safari/"), "Safari"),
)
_WECHAT: Final = re.compile(r"MicroMessenger/(\d+\.\d+\.\d+)")
WECHAT_ON_A_COMPUTER: Final = re.compile(r"(?:Windows|Mac)Wechat")


@dataclass(frozen=True, slots=True)
class Device:
    ip: str | None
    user_agent: str | None


def describe_device(user_agent: str | None) -> str | None:
    """Return a description such as `iOS 17.1, WeChat 8.0.44`; None if no pattern matches."""
    text = user_agent or ""
    system = _first_match(_SYSTEMS, text)
    wechat = _WECHAT.search(text)
    if wechat is not None:
        # WeChat on a computer always sends the same old version, so no version is shown.
        program = "WeChat" if WECHAT_ON_A_COMPUTER.search(text) else f"WeChat {wechat[1]}"
    elif system == _DEVTOOLS:
        program = None
    else:
        program = _first_match(_BROWSERS, text)
    parts = [part for part in (system, program) if part is not None]
    return ", ".join(parts) if parts else None


def _first_match(patterns: Iterable[tuple[re.Pattern[str], str]], text: str) -> str | None:
    for pattern, name in patterns:
        match = pattern.search(text)
        if match is not None:
            version = "".join(match.groups("")).replace("_", ".")  # empty if the pattern has no group
            return f"{name} {version}".strip()
    return None


# In responses, the description replaces the User-Agent.
DescribedDevice = Annotated[
    str | None, PlainSerializer(describe_device, return_type=str | None), Field(examples=["iOS 17.1, WeChat 8.0.44"])
]
