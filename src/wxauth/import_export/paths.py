"""The paths of `--map` into a line of JSON, such as `federatedIdentities[identityProvider=weixin].userId`."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic_core import to_json

from wxauth import i_json
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.lines import unwrapped

_BACKSLASH: Final = r"\\[].\\]|\\(?![].\\])"  # an escape, or a backslash that escapes nothing
_CONDITION: Final = rf"(?!\A)\[(?:{_BACKSLASH}|[^]=\\])+=(?:{_BACKSLASH}|[^]\\])*\]"
# A bracket that begins no condition is an ordinary character.
_STEP: Final = re.compile(
    rf"((?:{_CONDITION})+)|(?:\A|\.|(?<=\])(?=\[))((?:{_BACKSLASH}|(?!{_CONDITION})[^.\\])*)", re.DOTALL
)
_NUMBER: Final = re.compile("0|[1-9][0-9]{0,8}")
_KINDS: Final[Mapping[type, Text]] = {str: _("text"), list: _("an array"), dict: _("an object")}
_STOPPED: Final = _("must be at {path}, but {place} is {kind} in this line, so the path doesn't continue there")
_SEVERAL: Final = _("must be at {path}, but several elements of the array have these values")


class Misled(Exception):
    """A path leads into something that it cannot enter, or to several values."""

    def __init__(self, rule: Text) -> None:
        super().__init__(rule)
        self.rule = rule


_Conditions = tuple[tuple[str, str], ...]  # names, and the texts of their values


class _Step(NamedTuple):
    into: str | _Conditions  # a name, the number of an element, or what the only such element has
    begin: int  # in the path's text


class Path:
    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = [_Step(_conditions_or_name(*match.groups()), match.start()) for match in _STEP.finditer(text)]

    @property
    def root(self) -> str | _Conditions:
        """The name in the line where the path begins."""
        return self._steps[0].into

    def value_in(self, line: Mapping[str, object]) -> object:
        """Return the value. A name in the line that equals the whole path takes precedence.

        Raises: KeyError, if the line has no such value; Misled.
        """
        if self.text in line:
            return line[self.text]
        place: object = line
        for step in self._steps:
            if not place:  # null, or what other programs write in place of null, such as an empty text
                raise KeyError(self.text)
            place = self._value_of(step, place)
        return place

    def _value_of(self, step: _Step, place: object) -> object:
        if i_json.repeats_name(place):
            raise Misled(i_json.REPEATED_NAME)
        match place, step.into:
            case dict(), str(name):
                return place[name]
            case list(), tuple(conditions):
                return self._only_element(place, conditions)
            case list(), str(number) if _NUMBER.fullmatch(number):
                if int(number) >= len(place):
                    raise KeyError(self.text)
                return place[int(number)]
        kind = _KINDS.get(type(place), _("a number or true"))
        raise Misled(Text(_STOPPED, path=self.text, place=self.text[: step.begin], kind=kind))

    def _only_element(self, elements: list[object], conditions: _Conditions) -> object:
        if any(map(i_json.repeats_name, elements)):
            raise Misled(i_json.REPEATED_NAME)
        found = [
            element
            for element in elements
            if isinstance(element, dict)
            and all(name in element and text_of(element[name]) == value for name, value in conditions)
        ]
        if len(found) > 1:
            raise Misled(Text(_SEVERAL, path=self.text))
        if not found:
            raise KeyError(self.text)
        return found[0]


def text_of(value: object) -> str:
    """Return a text as it is, and the JSON of any other value, with which `--map` names the value."""
    value = unwrapped(value)
    return value if isinstance(value, str) else to_json(value).decode()


def _conditions_or_name(conditions: str | None, name: str | None) -> str | _Conditions:
    if conditions is None:
        return _unescaped(name or "")
    # A name in a condition can't contain an equals sign.
    pairs = (condition[1:-1].partition("=") for condition in re.findall(_CONDITION, f".{conditions}"))
    return tuple((_unescaped(name), _unescaped(value)) for name, _equals, value in pairs)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([].\\])", r"\1", text)
