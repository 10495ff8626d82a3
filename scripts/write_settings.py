"""Writes `.env.example` and the tables of `docs/settings*.md` from the declarations in `core/settings.py`."""

import re
import unicodedata
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from wxauth.errors import Title
from wxauth.problems import Language
from wxauth.server.core.setting_types import CENTURY_DAYS, CENTURY_SECONDS, CommaList
from wxauth.server.core.settings import PREFIX, Setting, Settings

ROOT: Final = Path(__file__).parents[1]
EXAMPLE: Final = ROOT / ".env.example"
GUIDES: Final[dict[Path, Language]] = {
    ROOT / "docs" / "settings.md": "en",
    ROOT / "docs" / "settings.zh-CN.md": "zh",
}

_WIDTH: Final = 118
_HEAD: Final = """\
# wxauth's settings. Copy to .env and fill in; `wxauth check` reports what is still wrong.
# wxauth 的全部设置。复制为 .env 后填写；`wxauth check` 会指出仍有问题之处。
# Values are not quoted, so that `docker run --env-file .env` also works.
# 值不加引号，因此也可直接用于 `docker run --env-file .env`。
# Commented lines show the defaults. The environment takes precedence over this file, and this file over files in
# /run/secrets. Written by scripts/settings.
# 注释掉的行即默认值。优先级：环境变量 > 本文件 > /run/secrets。本文件由 scripts/settings 生成。
"""


def pages() -> dict[Path, str]:
    """The text of each file."""
    return {EXAMPLE: _example(), **{guide: _guide(guide, language) for guide, language in GUIDES.items()}}


def _example() -> str:
    lines = [_HEAD]
    for name, field in Settings.model_fields.items():
        setting = _setting(field)
        if setting.heading:
            lines += [f"# --- {setting.heading.en} · {setting.heading.zh} ---", ""]
        lines += _comment(field, "en") + _comment(field, "zh")
        line = f"{PREFIX}{name.upper()}={setting.example or _default(field)}"
        lines += [line if field.is_required() or setting.example is not None else f"# {line}", ""]
    return "\n".join(lines)


def _comment(field: FieldInfo, language: Language) -> list[str]:
    required = _in(language, "Required. ", "必填。") if field.is_required() else ""
    text = re.sub(r"\[[^]]+\]\(([^)]+)\)", r"docs/\1", required + _text(field, language))
    text = re.sub(rf"`({'|'.join(Settings.model_fields).upper()})`", rf"`{PREFIX}\1`", text)
    return [f"# {line}" for line in _wrapped(text)]


def _guide(guide: Path, language: Language) -> str:
    """The guide as it is, but with a new table."""
    rows = []
    for name, field in Settings.model_fields.items():
        value = _default(field)
        default = _in(language, "required", "必填") if field.is_required() else f"`{value}`" if value else ""
        cells = (f"`{name.upper()}`", default, _text(field, language))
        rows.append("".join(f"| {cell} " if cell else "| " for cell in cells) + "|\n")
    head, rule, rest = re.split(r"^(\|[-|]+\|\n)", guide.read_text(), maxsplit=1, flags=re.MULTILINE)
    return head + rule + "".join(rows) + re.sub(r"\A(\|.*\n)*", "", rest)


def _setting(field: FieldInfo) -> Setting:
    [setting] = [each for each in field.metadata if isinstance(each, Setting)]
    return setting


def _default(field: FieldInfo) -> str:
    """The default as the environment would have it."""
    value = _setting(field).default or field.default
    if field.is_required() or value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, tuple | dict) else str(value)


def _text(field: FieldInfo, language: Language) -> str:
    """What a value must be, and the description."""
    setting, form = _setting(field), _form(field, language)
    return (form + _in(language, ". ", "。") if form else "") + _in(language, setting.en, setting.zh)


def _form(field: FieldInfo, language: Language) -> str:
    """What a value must be, as far as the type tells."""
    if field.annotation is bool:
        return _choice(("true", "false"), language)
    if get_origin(field.annotation) is Literal:
        return _choice(get_args(field.annotation), language)
    if CommaList in field.metadata:
        return _in(language, "Separated by commas", "逗号分隔")
    unit = [_in(language, *each) for each in field.metadata if isinstance(each, Title)]
    return _in(language, ", ", "，").join([*unit, *_range(field, language)])


def _choice(values: tuple[str, ...], language: Language) -> str:
    *others, last = (f"`{value}`" for value in values)
    return _in(language, ", ", "、").join(others) + _in(language, " or ", " 或 ") + last


def _range(field: FieldInfo, language: Language) -> list[str]:
    least = max((getattr(each, "ge", 0) for each in field.metadata), default=0)
    most = min((getattr(each, "le", CENTURY_SECONDS) for each in field.metadata), default=CENTURY_SECONDS)
    if most not in (CENTURY_DAYS, CENTURY_SECONDS):  # which only keep dates within what can be stored
        return [_in(language, f"{least} to {most}" if least else f"up to {most}", f"{least} 至 {most}")]
    return [_in(language, f"{least} or more", f"不小于 {least}")] if least else []


def _wrapped(text: str) -> list[str]:
    """Lines of at most _WIDTH columns, broken at spaces outside of code, and after Chinese punctuation."""
    lines = [""]
    for piece in re.findall(r"(?:`[^`]*`|\S)+?(?:[。；，：、]|(?=\s)|$)\s*", text):
        if _columns(lines[-1] + piece.rstrip()) > _WIDTH:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _in(language: Language, en: str, zh: str) -> str:
    return en if language == "en" else zh


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
