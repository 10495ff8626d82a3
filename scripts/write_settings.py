"""Write `.env.example` from the tables of `settings.md`. Tests also compare these tables with the declared settings."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from wxauth.settings.settings import PREFIX, WECHAT_FALLBACK_URL, Settings
from wxauth.settings.types import CENTURY_DAYS, CENTURY_SECONDS, CommaList

ROOT: Final = Path(__file__).parents[1]
EXAMPLE: Final = ROOT / ".env.example"
GUIDES: Final[dict[str, Path]] = {
    "en": ROOT / "docs/reference/settings.md",
    "zh": ROOT / "docs/zh/reference/settings.md",
}
_HEADINGS: Final = {
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
"""The headings of the groups in the example, in English and Chinese, by the first setting of each group."""
_TO_REPLACE: Final = {"database_url": "postgresql://wxauth@localhost:5432/wxauth", "app_id": "", "app_secret": ""}
"""The values that the example shows without a comment mark, for the operator to replace."""
_USUAL_DEFAULTS: Final = {
    "log_format": "json",
    "signing_key_lead": 86400,
    "wechat_fallback_url": WECHAT_FALLBACK_URL,
}
"""The usual defaults of settings whose declared default depends on another setting."""

_REQUIRED: Final = {"en": "Required. ", "zh": "必填。"}
"""The sentence before the description of a required setting in the example."""
_MAX_COLUMNS: Final = 118
"""The largest width, in columns, of a comment in the example, without `# `. A Chinese character takes two columns."""
_ROW: Final = re.compile(r"^\| `(?P<name>\w+)` \| (?P<default>.*?) ?\| (?P<description>.+) \|$", re.MULTILINE)
"""The pattern of a row that describes a setting in a guide."""
_HEAD: Final = """\
# wxauth's settings. Copy this file to .env, and enter your values. `wxauth check` reports what is still wrong.
# wxauth 的全部配置项。请复制为 .env 后填写，`wxauth check` 会指出仍然有误的配置。
# Don't quote the values, because `docker run --env-file .env` doesn't remove quotes.
# 值不要加引号，因为 `docker run --env-file .env` 不会去掉引号。
# Commented-out lines show the defaults. Environment variables take precedence over this file, and this file takes
# precedence over files in /run/secrets. Written by scripts/settings.
# 注释掉的行是默认值。优先级：环境变量 > 本文件 > /run/secrets 中的文件。本文件由 scripts/settings 生成。
"""


class _Row(NamedTuple):
    """The cells of a row about a setting in a guide, without the setting's name."""

    default: str
    description: str


def example() -> str:
    """Return the text of `.env.example`. Exit if a guide lacks a setting."""
    rows = {language: _rows_of(language) for language in GUIDES}
    missing = [line for language in GUIDES for line in _missing_rows(language, rows[language])]
    if missing:
        raise SystemExit("\n".join(missing))
    lines = [_HEAD]
    for name, field in Settings.model_fields.items():
        if name in _HEADINGS:
            lines += [f"# --- {' · '.join(_HEADINGS[name])} ---", ""]
        for language in GUIDES:
            required = _REQUIRED[language] if field.is_required() else ""
            lines += _comment(required + rows[language][name].description, GUIDES[language])
        if name in _TO_REPLACE:
            line = f"{PREFIX}{name.upper()}={_TO_REPLACE[name]}"
        else:
            line = f"{PREFIX}{name.upper()}={_default(name, field)}"
            if not field.is_required():
                line = f"# {line}"
        lines += [line, ""]
    return "\n".join(lines)


def differences(language: str) -> Iterator[str]:
    """Yield the changes that make the tables of a guide agree with the declarations of the settings."""
    rows = _rows_of(language)
    yield from _missing_rows(language, rows)
    page = GUIDES[language].relative_to(ROOT)
    yield from (f"{page}: remove the row of {name.upper()}" for name in rows if name not in Settings.model_fields)
    known = [name for name in Settings.model_fields if name in rows]
    if known != [name for name in rows if name in known]:
        yield f"{page}: put the rows into this order: {', '.join(known).upper()}"
    for name in known:
        for difference in _differences_of_row(name, rows[name], language):
            yield f"{page}: {difference}"


def _rows_of(language: str) -> dict[str, _Row]:
    """Return the rows of the guide's tables, by the setting's name in lower case."""
    matches = _ROW.finditer(GUIDES[language].read_text("utf-8"))
    return {match["name"].lower(): _Row(match["default"], match["description"]) for match in matches}


def _missing_rows(language: str, names: Collection[str]) -> Iterator[str]:
    """Yield a new row, and its place, for each setting that the guide lacks. `names` are the settings in the guide."""
    previous = ""
    for name, field in Settings.model_fields.items():
        if name not in names:
            default = _default(name, field)
            cell = f"`{default}`" if default else ""
            row = f"| `{name.upper()}` | {cell} | what it does, in whole sentences |"
            where = f"below the row of {previous.upper()}" if previous else "as the first row"
            yield f"{GUIDES[language].relative_to(ROOT)}: {where}, add {row}"
        previous = name


def _differences_of_row(name: str, row: _Row, language: str) -> Iterator[str]:
    """Yield the changes that make a setting's row agree with its declaration."""
    field = Settings.model_fields[name]
    default = _default_cell(name, field, language)
    if row.default != default:
        yield f"the default of {name.upper()} must be {default or 'empty'}"
    beginning = _beginning(field, language)
    if not row.description.startswith(beginning):
        yield f"the description of {name.upper()} must begin with {beginning}"
    limits = _range(field, language)
    if limits not in row.description:
        yield f"the description of {name.upper()} must contain {limits}"


def _default_cell(name: str, field: FieldInfo, language: str) -> str:
    """Return the cell with a setting's default."""
    if field.is_required():
        return _in(language, "required", "必填")
    default = _default(name, field)
    return f"`{default}`" if default else ""


def _default(name: str, field: FieldInfo) -> str:
    """Return a setting's default in the form of an environment variable; an empty string if there is no default."""
    default = _USUAL_DEFAULTS.get(name, field.default)
    if field.is_required() or default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, tuple | dict):
        return ",".join(default)
    return str(default)


def _beginning(field: FieldInfo, language: str) -> str:
    """Return the text with which a setting's description must begin.

    It lists the possible values, or says that the setting is a list; an empty string for any other setting.
    """
    if field.annotation is bool:
        return _alternatives(("true", "false"), language)
    if get_origin(field.annotation) is Literal:
        return _alternatives(get_args(field.annotation), language)
    return _in(language, "Separated by commas", "逗号分隔") if CommaList in field.metadata else ""


def _alternatives(values: Sequence[str], language: str) -> str:
    """Return values as a list in a sentence, such as `json`, `text` or `auto`, each in code style."""
    *others, last = (f"`{value}`" for value in values)
    return _in(language, ", ", "、").join(others) + _in(language, " or ", " 或 ") + last


def _range(field: FieldInfo, language: str) -> str:
    """Return the text about a setting's smallest and largest value; an empty string if there are no such limits."""
    smallest = max((getattr(constraint, "ge", 0) for constraint in field.metadata), default=0)
    largest = min(
        (getattr(constraint, "le", CENTURY_SECONDS) for constraint in field.metadata), default=CENTURY_SECONDS
    )
    if largest in (CENTURY_DAYS, CENTURY_SECONDS):  # these limits only ensure that a date can be stored
        return _in(language, f"{smallest} or more", f"不小于 {smallest}") if smallest else ""
    english = f"{smallest} to {largest}" if smallest else f"up to {largest}"
    return _in(language, english, f"{smallest} 至 {largest}")


def _comment(text: str, page: Path) -> list[str]:
    """Return a description from a guide as the lines of a comment in the example.

    A link becomes the path of its target, relative to the repository's root, and settings get the prefix of variables.
    """

    def path_from_root(link: re.Match[str]) -> str:
        return os.path.relpath(page.parent / link[1], ROOT)

    names = "|".join(Settings.model_fields).upper()
    text = re.sub(r"\[[^]]+\]\(([^)]+)\)", path_from_root, text)
    text = re.sub(rf"`({names})`", rf"`{PREFIX}\1`", text)
    return [f"# {line}" for line in _wrapped(text)]


def _wrapped(text: str) -> list[str]:
    """Return the lines of a text, broken at spaces outside of code, and after Chinese punctuation.

    Only a piece of text without such a place can be longer than `_MAX_COLUMNS`.
    """
    lines = [""]
    for piece in re.findall(r"(?:`[^`]*`|\S)+?(?:[。；，：、]|(?=\s)|$)\s*", text):
        if _columns(lines[-1] + piece.rstrip()) > _MAX_COLUMNS:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _columns(text: str) -> int:
    """Return the width of a text in a terminal, in columns."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _in(language: str, english: str, chinese: str) -> str:
    """Return the text in this language."""
    return english if language == "en" else chinese


if __name__ == "__main__":
    EXAMPLE.write_text(example(), "utf-8")
