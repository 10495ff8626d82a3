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
from wxauth.settings.env_file import EnvLine, read_env_file
from wxauth.settings.resources import Resource
from wxauth.settings.settings import PREFIX, AnySettings, InvalidSettings, Settings
from wxauth.terminal import os_reason, rule_of

ENV_FILE: Final = Path(".env")

_SERVICE_LINK_NAME: Final = re.compile(
    r"WXAUTH_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
"""The pattern of the names of variables that Kubernetes sets for a Service named "wxauth" or "wxauth-…".

Kubernetes also sets WXAUTH_PORT or WXAUTH_…_PORT. Because WXAUTH_PORT is the name of a setting, wxauth recognizes these
variables by their values, which match `types.SERVICE_LINK`.
"""
_NAMES: Final = [name.upper() for name in Settings.model_fields]
"""The names of all settings, without wxauth's prefix."""
_NAMES_IN_APPS: Final = [name for name in map(str.upper, App.model_fields) if name not in _NAMES]
"""The names, in upper case, of the fields of an app that are not also settings."""
_SIGN: Final = "[:：＝﹦⁼]"
"""The pattern of a sign that operators type in place of `=`, for example the full-width `＝` of a Chinese keyboard."""
_SETTING: Final = re.compile(
    rf"""
    (?:export\s)?\s*(?P<before>.*?)\b
    {PREFIX}(?P<setting>{"|".join(sorted(_NAMES, key=len, reverse=True))}|(?:{"|".join(_NAMES_IN_APPS)})(?=\s*{_SIGN}))
    (?P<rest>\s*(?P<sign>{_SIGN}?).*)
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
"""The pattern of a text that contains the name of a setting.

The name of an app's field also matches, but only before a sign that was typed in place of `=` (see `_SIGN`). If several
names match, the longest one counts. The groups `before` and `rest` contain the text before and after the name, and
`sign` contains the sign, or is empty.
"""
_WORD: Final = re.compile(r"\w+", re.ASCII)
_OTHER_QUOTES: Final = tuple("“”‘’„«＂＇「『`")
"""The quotation marks that operators type in place of straight quotes."""


def load_settings(
    kind: type[AnySettings], *, env_file: Path = ENV_FILE, secrets_dir: Path = types.DEFAULT_SECRETS_DIR
) -> AnySettings:
    """Read settings from the environment, a `.env` file, and files named after settings.

    If several of these sources contain a setting, the first one in this order takes precedence. The files named after
    settings are in the folder WXAUTH_SECRETS_DIR, by default in `secrets_dir`.

    Raises: InvalidSettings, if a setting is wrong or missing, or if a file cannot be read. Unless `.env` cannot be
        read, the error also lists the results of `setting_faults`, because a missing setting might be misspelled.
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
    """Create settings. `values` take precedence over the environment.

    Raises: InvalidSettings, if a setting is wrong or missing.
    """
    try:
        return kind(**values)
    except ValidationError as exc:
        raise InvalidSettings(_problem(error) for error in exc.errors(include_input=False)) from None


def setting_faults(environ: Mapping[str, str] = os.environ, *, env_file: Path | None = ENV_FILE) -> list[Text]:
    """Return texts about faults that wxauth would otherwise ignore.

    The faults are:

    - a name with wxauth's prefix that isn't a setting
    - a line of `.env` that sets nothing
    - a value that begins with a wrong quotation mark, such as `“`

    A text contains the name of a setting, or the name of an environment variable that consists of capital letters and
    underscores. It contains no other name, because a secret might be in its place, and never a value. If `env_file` is
    None, only the environment is examined.

    Raises: OSError; UnicodeDecodeError, if the file is not UTF-8.
    """
    lines = [EnvLine(None, name, name, value) for name, value in sorted(environ.items())]
    lines += read_env_file(env_file).lines if env_file else []
    faults = [_fault_of(line) for line in lines]
    return [fault for fault in faults if fault is not None]


def _fault_of(line: EnvLine) -> Text | None:
    """Return a text that describes what is wrong with a line: it sets nothing, or its name or quotes are wrong.

    Return None if there is nothing to report.
    """
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
    # The line may contain the name of a setting with a wrong sign in place of `=`. The whole line is searched if it has
    # no name, or if its name is a setting without a value. Otherwise, only its name is searched, because its value may
    # mention a setting for another reason. For example, the parser returns all of `WXAUTH_PORT：8000` as a name, since
    # it contains no space.
    searched_text = line.text if line.name is None or is_setting else line.name
    match = _SETTING.match(searched_text)
    if match is not None:
        fault = _fault_of_setting(match, similar, place)
        if fault is not None:
            return fault
    return _fault_of_name(line, similar, place)


def _similar_setting(name: str) -> str | None:
    """Return the setting that the operator may have meant, without wxauth's prefix; None if no setting is similar.

    `name` is in upper case.
    """
    match = _WORD.match(name.removeprefix(PREFIX))
    word = match[0] if match else ""
    if word in _NAMES_IN_APPS:
        return "APPS"  # an app's field is not a separate setting, but belongs in WXAUTH_APPS
    similar_names = difflib.get_close_matches(word, _NAMES, n=1)
    return similar_names[0] if similar_names else None


def _fault_of_name(line: EnvLine, similar: str | None, place: Text) -> Text | None:
    """Return a text about a line without a name, or about a name with wxauth's prefix that isn't a setting.

    `similar` is the result of `_similar_setting`. Return None for a name without wxauth's prefix, because such a name
    belongs to another program.
    """
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
    """Return a text about the characters around the name of a setting, which `_SETTING` has matched.

    Return None if a single letter follows the name, or if letters, digits or underscores follow it directly and
    `similar`, the result of `_similar_setting`, is another setting. In both cases, the name is misspelled, which
    `_fault_of_name` reports.
    """
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
    """Return the texts of a folder's files whose names, in upper case, are among `names`. Ignore other files.

    The keys of the result are the upper-case names. The texts have no whitespace around them. If the folder is missing,
    return no texts.

    Raises: InvalidSettings, if the folder cannot be read, or if an entry with one of these names is not
        a readable UTF-8 text file.
    """
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
    """Return a text about one of pydantic's errors.

    The text, such as `WXAUTH_APPS[0].app_secret: is required`, names the variable and the rule that the value breaks.
    """
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
