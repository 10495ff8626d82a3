"""Checks the Python that runs wxauth."""

import http.cookies
from platform import python_version
from types import ModuleType

from wxauth.server.checks.result import CheckResult, good, note


def judge_python(cookies: ModuleType = http.cookies) -> CheckResult:
    """Whether this Python parses cookies in linear time.

    Its version does not show that, because distributions patch older versions, too. The patched module has no
    `_OctalPatt`.

    Args:
        cookies: The standard library's `http.cookies`.
    """
    if not hasattr(cookies, "_OctalPatt"):
        return good("python", python_version())
    return note(
        "python",
        f"{python_version()} takes seconds to parse a hostile Cookie header (CVE-2024-7592): wxauth parses cookies "
        "itself, but other services on this Python may stop; 3.11.10, 3.12.6 and newer are mended",
        f"{python_version()} 解析恶意 Cookie 请求头需要数秒（CVE-2024-7592）：wxauth 自行解析 Cookie，不受影响，"
        "但使用此 Python 的其他服务可能停顿；3.11.10、3.12.6 及更高版本已修复",
    )
