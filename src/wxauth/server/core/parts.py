"""Parts of the service: classes whose fields are what they need, put together by the types of these fields."""

from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any, Final, TypeVar, dataclass_transform

Part = TypeVar("Part")

_KINDS: Final = set[type]()


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
def part(kind: type[Part]) -> type[Part]:
    """Make a class whose fields are the arguments of its constructor. Each of its objects equals itself alone."""
    made = dataclass(kw_only=True, eq=False, repr=False)(kind)
    _KINDS.add(made)
    return made


class Parts(dict[Any, Any]):
    """The parts by their types. One that is asked for and needs nothing but other parts is made then."""

    def make(self, kind: type[Part], **given: Any) -> Part:
        """Make a part of what is given, and of other parts, by their types. Raises: TypeError, if one is missing."""
        arguments = _arguments_of(kind)  # type: ignore[arg-type] # mypy: a class is not hashable
        wanted = ((name, type_) for name, type_ in arguments.items() if name not in given)
        found = {name: self[type_] for name, type_ in wanted if type_ in self or type_ in _KINDS}
        made = self[kind] = kind(**found, **given)
        return made

    def __missing__(self, kind: Any) -> Any:
        if kind not in _KINDS:
            raise KeyError(kind)
        return self.make(kind)


@cache
def _arguments_of(kind: type) -> dict[str, Any]:
    return {name: it.annotation for name, it in signature(kind).parameters.items()}
