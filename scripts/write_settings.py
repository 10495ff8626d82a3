"""Write `.env.example` from the tables of `settings.md`, and compare the tables with the declared settings."""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from wxauth.settings.settings import PREFIX, WECHAT_FALLBACK_URL, Settings
from wxauth.settings.types import CENTURY_DAYS, CENTURY_SECONDS, CommaList

ROOT: Final = Path(__file__).parents[1]
EXAMPLE: Final = ROOT / ".env.example"
GUIDES: Final[dict[str, Path]] = {
    "en": ROOT / "docs/reference/settings.md",
    "zh": ROOT / "docs/zh/reference/settings.md",
}
HEADINGS: Final = {
    "database_url": ("Database and logs", "数据库与日志"),
    "app_id": ("Mini-programs", "小程序"),
    "secret_key": ("Secret keys", "密钥"),
    "issuer": ("Tokens and sessions", "令牌与会话"),
    "wechat_base_url": ("Calls to WeChat", "调用微信接口"),
    "phone_policy": ("Users", "用户"),
    "events_kept_days": ("Retention", "数据保留"),
    "scan_page": ("Scan login", "扫码登录"),
    "redis_url": ("Rate limits", "限流"),
    "trusted_proxies": ("Proxies, browsers, traces", "代理、跨域与链路追踪"),
    "admin_page": ("Admin console", "管理后台"),
    "host": ("Server", "监听与进程"),
}
"""The headings of the groups in the example, by the first setting of each, in English and Chinese."""
TO_REPLACE: Final = {"database_url": "postgresql://wxauth@localhost:5432/wxauth", "app_id": "", "app_secret": ""}
"""The values that the example shows without a comment mark, for the operator to replace."""
USUAL: Final = {"log_format": "json", "wechat_fallback_url": WECHAT_FALLBACK_URL}
"""The usual defaults of settings whose declared default depends on another setting."""

_WIDTH: Final = 118
_ROW: Final = re.compile(r"^\| `(\w+)` \| (.*?) ?\| (.+) \|$", re.MULTILINE)
_HEAD: Final = """\
# wxauth's settings. Copy this file to .env, and enter your values. `wxauth check` reports what is still wrong.
# wxauth 的全部配置项。请复制为 .env 后填写，`wxauth check` 会指出仍然有误的配置。
# Don't quote the values, because `docker run --env-file .env` doesn't remove quotes.
# 值不要加引号，因为 `docker run --env-file .env` 不会去掉引号。
# Commented-out lines show the defaults. Environment variables take precedence over this file, and this file takes
# precedence over files in /run/secrets. Written by scripts/settings.
# 注释掉的行是默认值。优先级：环境变量 > 本文件 > /run/secrets 中的文件。本文件由 scripts/settings 生成。
"""


def described(language: str) -> dict[str, tuple[str, str]]:
    """Return the default and the description of each setting, as in the guide."""
    return {name.lower(): (default, text) for name, default, text in _ROW.findall(GUIDES[language].read_text("utf-8"))}


def example() -> str:
    """Return the text of `.env.example`. Exit if a guide describes an unknown setting."""
    texts = {language: described(language) for language in GUIDES}
    if missing := [line for language in GUIDES for line in _missing(language, texts[language])]:
        raise SystemExit("\n".join(missing))
    lines = [_HEAD]
    for name, field in Settings.model_fields.items():
        if name in HEADINGS:
            lines += [f"# --- {' · '.join(HEADINGS[name])} ---", ""]
        for language, required in zip(GUIDES, ("Required. ", "必填。"), strict=True):
            lines += _comment((required if field.is_required() else "") + texts[language][name][1], GUIDES[language])
        line = f"{PREFIX}{name.upper()}={TO_REPLACE.get(name, _default(name, field))}"
        lines += [line if field.is_required() or name in TO_REPLACE else f"# {line}", ""]
    return "\n".join(lines)


def differences(language: str) -> Iterator[str]:
    """Yield what to change in the guide, so that it fits the declarations."""
    texts = described(language)
    yield from _missing(language, texts)
    page = GUIDES[language].relative_to(ROOT)
    yield from (f"{page}: remove the row of {name.upper()}" for name in texts if name not in Settings.model_fields)
    known = [name for name in Settings.model_fields if name in texts]
    if known != [name for name in texts if name in known]:
        yield f"{page}: put the rows into this order: {', '.join(known).upper()}"
    for name in known:
        field, (default, text) = Settings.model_fields[name], texts[name]
        value = _default(name, field)
        required = _in(language, "required", "必填")
        if default != (wanted := required if field.is_required() else f"`{value}`" if value else ""):
            yield f"{page}: the default of {name.upper()} must be {wanted or 'empty'}"
        if not text.startswith(form := _form(field, language)):
            yield f"{page}: the description of {name.upper()} must begin with {form}"
        if (bounds := _range(field, language)) not in text:
            yield f"{page}: the description of {name.upper()} must contain {bounds}"


def _missing(language: str, texts: Mapping[str, object]) -> Iterator[str]:
    """Yield what to add to the guide for each new setting, and where."""
    before = ""
    for name, field in Settings.model_fields.items():
        if name not in texts:
            default = f"`{_default(name, field)}`" if _default(name, field) else ""
            row = f"| `{name.upper()}` | {default} | what it does, in whole sentences |"
            where = f"below the row of {before.upper()}" if before else "as the first row"
            yield f"{GUIDES[language].relative_to(ROOT)}: {where}, add {row}"
        before = name


def _comment(text: str, page: Path) -> list[str]:
    def from_the_root(link: re.Match[str]) -> str:
        return os.path.relpath(page.parent / link[1], ROOT)

    text = re.sub(r"\[[^]]+\]\(([^)]+)\)", from_the_root, text)
    text = re.sub(rf"`({'|'.join(Settings.model_fields).upper()})`", rf"`{PREFIX}\1`", text)
    return [f"# {line}" for line in _wrapped(text)]


def _default(name: str, field: FieldInfo) -> str:
    """Return the default in the form of an environment variable."""
    value = USUAL.get(name, field.default)
    if field.is_required() or value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, tuple | dict) else str(value)


def _form(field: FieldInfo, language: str) -> str:
    """Return the beginning of a description, which lists the values, or says that there can be several."""
    values = ("true", "false") if field.annotation is bool else get_args(field.annotation)
    if field.annotation is bool or get_origin(field.annotation) is Literal:
        *others, last = (f"`{value}`" for value in values)
        return _in(language, ", ", "、").join(others) + _in(language, " or ", " 或 ") + last
    return _in(language, "Separated by commas", "逗号分隔") if CommaList in field.metadata else ""


def _range(field: FieldInfo, language: str) -> str:
    least = max((getattr(each, "ge", 0) for each in field.metadata), default=0)
    most = min((getattr(each, "le", CENTURY_SECONDS) for each in field.metadata), default=CENTURY_SECONDS)
    if most not in (CENTURY_DAYS, CENTURY_SECONDS):  # these only limit dates to what can be stored
        return _in(language, f"{least} to {most}" if least else f"up to {most}", f"{least} 至 {most}")
    return _in(language, f"{least} or more", f"不小于 {least}") if least else ""


def _wrapped(text: str) -> list[str]:
    """Return lines of at most _WIDTH columns, broken at spaces outside of code, and after Chinese punctuation."""
    lines = [""]
    for piece in re.findall(r"(?:`[^`]*`|\S)+?(?:[。；，：、]|(?=\s)|$)\s*", text):
        if _columns(lines[-1] + piece.rstrip()) > _WIDTH:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _in(language: str, en: str, zh: str) -> str:
    return en if language == "en" else zh


if __name__ == "__main__":
    EXAMPLE.write_text(example(), "utf-8")
