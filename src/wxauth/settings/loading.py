"""Functions that load the settings from the environment, from a `.env` file, and from files named after settings.

The module also finds misspelled names and lines that set nothing, because wxauth would otherwise ignore them silently.
"""

import difflib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings import types
from wxauth.settings.apps import App
from wxauth.settings.env_file import ENV_FILE, EnvLine, read_env_file
from wxauth.settings.resources import Resource
from wxauth.settings.settings import PREFIX, AnySettings, InvalidSettings, Settings
from wxauth.terminal import os_reason, rule_of

# Kubernetes sets these variables for a Service named "wxauth" or "wxauth-…", and also WXAUTH_PORT or WXAUTH_…_PORT.
# Because WXAUTH_PORT is the name of a setting, wxauth recognizes these two by their values (`types.SERVICE_LINK`).
_SERVICE_LINK_NAME: Final = re.compile(
    r"WXAUTH_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_NAMES: Final = [name.upper() for name in Settings.model_fields]
_NAMES_IN_APPS: Final = [name for name in map(str.upper, App.model_fields) if name not in _NAMES]
_SIGN: Final = "[:：＝﹦⁼]"  # typed in place of `=`, for example the `＝` of a Chinese keyboard
# A line with the name of a setting or, before a wrong sign, of an app's field. The longest name counts.
_SETTING: Final = re.compile(
    rf"""
    (?:export\s)?\s*(?P<before>.*?)\b
    {PREFIX}(?P<setting>{"|".join(sorted(_NAMES, key=len, reverse=True))}|(?:{"|".join(_NAMES_IN_APPS)})(?=\s*{_SIGN}))
    (?P<rest>\s*(?P<sign>{_SIGN}?).*)
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_WORD: Final = re.compile(r"\w+", re.ASCII)
_OTHER_QUOTES: Final = tuple("“”‘’„«＂＇「『`")  # typed in place of straight quotes


def load_settings(
    kind: type[AnySettings], *, env_file: Path = ENV_FILE, secrets_dir: Path = types.DEFAULT_SECRETS_DIR
) -> AnySettings:
    """Read settings from the environment, a `.env` file, and files named after settings, in this order of precedence.

    Raises: InvalidSettings. Unless `.env` cannot be read, the error also lists the results of `setting_faults`, because
        a missing setting might be misspelled.
    """
    try:
        env = {name.upper(): value for name, value in {**read_env_file(env_file).values, **os.environ}.items()}
        secrets_dir = Path(env.get(f"{PREFIX}SECRETS_DIR") or secrets_dir)
        fields = {f"{PREFIX}{field.upper()}": field for field in kind.model_fields}
        texts = {**_read_files(secrets_dir, fields.keys() - env), **env}
        # A line of `.env` without `=` has the value None.
        values = {field: texts[name] for name, field in fields.items() if texts.get(name) is not None}
        return settings_from(kind, **values)
    except InvalidSettings as exc:
        raise InvalidSettings([*exc.problems, *setting_faults(env_file=env_file)]) from None
    except OSError as exc:
        problem = _("can't read {file}: {reason}", file=env_file, reason=os_reason(exc))
        raise InvalidSettings([problem]) from None
    except UnicodeDecodeError:
        raise InvalidSettings([_("{name}: must be UTF-8 text", name=env_file)]) from None


def settings_from(kind: type[AnySettings], **values: Any) -> AnySettings:
    """Create settings. `values` take precedence over the environment."""
    try:
        return kind(**values)
    except ValidationError as exc:
        raise InvalidSettings(_problem(error) for error in exc.errors(include_input=False)) from None


def setting_faults(environ: Mapping[str, str] = os.environ, *, env_file: Path | None = ENV_FILE) -> list[Text]:
    """Return texts about misspelled names, lines that set nothing, and wrong quotes, which nobody else would notice.

    A text contains the name of a setting, or the name of an environment variable that consists of capital letters and
    underscores. It contains no other name, because a secret might be in its place, and never a value.

    Raises: OSError; UnicodeDecodeError, if the file is not UTF-8.
    """
    lines = [EnvLine(None, name, name, value) for name, value in sorted(environ.items())]
    lines += read_env_file(env_file).lines if env_file else []
    faults = [_fault_of(line) for line in lines]
    return [fault for fault in faults if fault is not None]


def _fault_of(line: EnvLine) -> Text | None:
    name = (line.name or "").upper()
    value = line.value or ""
    place = _(".env, line {n}", n=line.number) if line.number is not None else _("the environment")
    is_setting = name.startswith(PREFIX) and name.removeprefix(PREFIX) in _NAMES
    if is_setting and line.value is not None:
        if value.startswith(_OTHER_QUOTES):
            return _("{name}: must use straight quotes or no quotes ({place})", name=name, place=place)
        return None
    if _SERVICE_LINK_NAME.fullmatch(name) or (name.endswith("_PORT") and types.SERVICE_LINK.match(value)):
        return None
    similar = _similar_setting(name)
    # The line may contain the name of a setting with a wrong sign in place of `=`: the parser returns all of
    # `WXAUTH_PORT：8000` as a name, since it contains no space. A value may mention a setting for another reason.
    searched_text = line.text if line.name is None or is_setting else line.name
    match = _SETTING.match(searched_text)
    if match is not None:
        fault = _fault_of_setting(match, similar, place)
        if fault is not None:
            return fault
    return _fault_of_name(line, similar, place)


def _similar_setting(name: str) -> str | None:
    match = _WORD.match(name.removeprefix(PREFIX))
    word = match[0] if match else ""
    if word in _NAMES_IN_APPS:
        return "APPS"  # an app's field is not a separate setting, but belongs in WXAUTH_APPS
    similar_names = difflib.get_close_matches(word, _NAMES, n=1)
    return similar_names[0] if similar_names else None


def _fault_of_name(line: EnvLine, similar: str | None, place: Text) -> Text | None:
    if line.name is None:
        return _("{name}: {rule}", name=place, rule=_("must have the form NAME=value"))
    if not line.name.upper().startswith(PREFIX):
        return None
    # For a line of `.env`, the text contains only the line's number, because a secret may be in the place of the name.
    # The name of an environment variable may end with a secret if the operator has left out the `=` between a name and
    # its value. Therefore, the text shows only a name of capital letters and underscores.
    can_show_name = line.number is None and re.fullmatch("[A-Z_]+", line.text) is not None
    shown_name = line.text if can_show_name else place
    if similar is None:
        return _("{name}: no such setting", name=shown_name)
    return _("{name}: no such setting. Did you mean {meant}?", name=shown_name, meant=f"{PREFIX}{similar}")


def _fault_of_setting(match: re.Match[str], similar: str | None, place: Text) -> Text | None:
    setting, rest, sign = match["setting"].upper(), match["rest"], match["sign"]
    if re.fullmatch("[A-Za-z]", rest):
        return None  # with a single letter after it, the name is misspelled, for example a plural
    # Several letters after the name belong to the name of another setting, or are a value whose `=` is missing.
    if _WORD.match(rest) and similar not in (None, setting):
        return None
    if match["before"]:
        text = _("{name}: must be at the beginning of its line ({place})")
    elif rest.startswith("="):  # if the quotes were right, the parser of `.env` would have returned the name alone
        text = _("{name}: a quoted value must end with a closing quote, and nothing may follow the quote ({place})")
    elif sign:
        text = _("{name}: must be followed by '=', not by '{sign}' ({place})")
    else:
        text = _("{name}: must be followed by '=' ({place})")
    return Text(text, name=f"{PREFIX}{setting}", sign=sign, place=place)


def _read_files(folder: Path, names: Collection[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    try:
        paths = list(folder.iterdir()) if folder.is_dir() else []
    except OSError:
        rule = _("must be a readable folder")
        raise InvalidSettings([_("{name}: {rule}", name=f"{PREFIX}SECRETS_DIR", rule=rule)]) from None
    for path in paths:
        name = path.name.upper()
        if name not in names:
            continue
        try:
            # If the file that is to be mounted does not exist, Docker creates a folder in its place.
            if path.is_dir():
                raise InvalidSettings([_("{name}: must be a file, not a folder", name=name)])
            texts[name] = path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError):
            raise InvalidSettings([_("{name}: must be a readable UTF-8 text file", name=name)]) from None
    return texts


def _problem(error: Mapping[str, Any]) -> Text:
    location: tuple[str | int, ...] = error["loc"]
    rule = rule_of(error)
    if rule.startswith(PREFIX):  # a rule about several settings names them itself
        return rule
    if error["type"] == "extra_forbidden":
        kind = Resource if location[0] == "resources" else App
        rule = _("must contain only {names}", names=", ".join(kind.model_fields))
        location = location[:-1]  # the rule is about the object that contains the extra field
    elif error["type"] == "missing":
        rule = _("is required")
    elif error["type"] == "string_pattern_mismatch" and location[-1] == "app_id":
        rule = _("must be an AppID, such as wx0123456789abcdef")
    setting = f"{PREFIX}{str(location[0]).upper()}"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location[1:])
    return _("{name}: {rule}", name=f"{setting}{path}", rule=rule)
