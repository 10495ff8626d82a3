"""The parts of the service as FastAPI's dependencies, and the order in which an endpoint's dependencies are called.

`provide` returns the dependency for a part. A test may replace any of them: `app.dependency_overrides[provide(KeyRing)]
= ...`.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
from operator import itemgetter
from typing import Annotated, Any, Final, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from fastapi import Depends
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from starlette.requests import HTTPConnection, Request

from wxauth.core.clock import Clock
from wxauth.core.database import Database
from wxauth.core.services import Services
from wxauth.settings.settings import Settings
from wxauth.web.answers import Entails
from wxauth_guard.verifier import Verifier

_REQUEST: Final = 0
_STACK: Final = 1
_IGNORED: Final = (
    "path_params",
    "query_params",
    "header_params",
    "cookie_params",
    "body_params",
    "websocket_param_name",
    "response_param_name",
    "background_tasks_param_name",
    "security_scopes_param_name",
)
"""The fields of `Dependant` for values that FastAPI gives to a dependency, but a plan does not."""

Part = TypeVar("Part")
Overrides = Mapping[Callable[..., Any], Callable[..., Any]]
"""The type of an app's `dependency_overrides`."""


async def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the app that received the request. Nothing else reads the app's state."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


@cache
def provide(kind: type[Part]) -> Callable[[Services], Awaitable[Part]]:
    """Return the dependency on the part of the service that has this type.

    The same type always gives the same function.
    """

    async def part(services: ServicesDep) -> Part:
        # Using `services[kind]` as the dependency would cost an additional call for each dependency of a request.
        found: Part = services.parts[kind]
        return found

    return part


SettingsDep = Annotated[Settings, Depends(provide(Settings))]
ClockDep = Annotated[Clock, Depends(provide(Clock))]
DatabaseDep = Annotated[Database, Depends(provide(Database))]
VerifierDep = Annotated[Verifier, Depends(provide(Verifier))]


class Argument(NamedTuple):
    """A parameter of an endpoint that is not a dependency.

    Attributes:
        read: Reads the value from the request.
        entails: The documentation that it adds to the operation.
    """

    read: Callable[[Request], Awaitable[Any]]
    entails: Entails


class _Call(NamedTuple):
    """One call of a plan, which takes values of earlier calls.

    Most calls take one value. Passing it directly, and not in a tuple, halves the overhead of a plan.

    Attributes:
        place: The position of the value, if there is only one.
        pick: A function that picks the values, if there is not exactly one; otherwise None.
    """

    call: Callable[..., Awaitable[Any]]
    place: int
    pick: Callable[[Sequence[Any]], tuple[Any, ...]] | None


class Plan:
    """The calls of an endpoint in order: its parameters from left to right, each after those that it takes.

    A dependency is called once for each request, unless it is declared with `use_cache=False`. It takes the request and
    other dependencies. If it is not a coroutine function, it is called directly, without a thread, so it must not
    block. The code after a `yield` runs before the response is sent, as with FastAPI's `scope="function"`, so a client
    that reads slowly holds no resources.

    Args:
        dependant: FastAPI's graph of the endpoint.
        arguments: The endpoint's other parameters.
        overrides: Dependencies to call in place of others.

    Raises: TypeError, for a dependency that takes anything else.
    """

    def __init__(
        self, dependant: Dependant, arguments: Mapping[str, Argument], overrides: Overrides | None = None
    ) -> None:
        assert dependant.call is not None
        self.yields = False
        """Whether code follows the calls. In that case `run` needs a stack, which its caller closes."""
        self._path = dependant.path or ""
        self._overrides = overrides or {}
        self._calls: list[_Call] = []
        self._places: dict[Callable[..., Any], int] = {}
        dependencies = {each.name: each for each in dependant.dependencies}
        takes = {}
        for name in inspect.signature(dependant.call).parameters:
            if name in arguments:
                takes[name] = self._add(arguments[name].read, (_REQUEST,))
            else:
                takes[name] = self._add_dependency(dependencies[name])
        self._add(*_by_place(dependant.call, takes))
        self._plan = tuple(self._calls)

    async def run(self, request: Request, stack: AsyncExitStack | None = None) -> Any:
        """Call everything in order, and return what the endpoint returns."""
        values: list[Any] = [request, stack]
        for call, place, pick in self._plan:
            values.append(await (call(values[place]) if pick is None else call(*pick(values))))
        return values[-1]

    def _add_dependency(self, dependant: Dependant) -> int:
        assert dependant.call is not None
        if dependant.use_cache and dependant.call in self._places:
            return self._places[dependant.call]
        used = dependant
        if dependant.call in self._overrides:
            used = get_dependant(path=self._path, call=self._overrides[dependant.call])
        assert used.call is not None
        for what in _IGNORED:
            if getattr(used, what):
                raise TypeError(f"{used.call} takes {what}: on a direct route it takes the request and dependencies")
        takes = {each.name or "": self._add_dependency(each) for each in used.dependencies}
        requests = (used.request_param_name, used.http_connection_param_name)
        takes |= {name: _REQUEST for name in requests if name is not None}
        place = self._add_called(used.call, takes)
        self._places.setdefault(dependant.call, place)
        return place

    def _add_called(self, call: Callable[..., Any], takes: dict[str, int]) -> int:
        function = _function_of(call)
        make, places = _by_place(call, takes)
        if inspect.iscoroutinefunction(function):
            return self._add(make, places)
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"{call} yields: on a direct route it must be asynchronous")
        if not inspect.isasyncgenfunction(function):

            async def made(*values: Any) -> Any:
                return make(*values)

            return self._add(made, places)
        open_it = asynccontextmanager(make)

        async def enter(stack: AsyncExitStack, *values: Any) -> Any:
            return await stack.enter_async_context(open_it(*values))

        self.yields = True
        return self._add(enter, (_STACK, *places))

    def _add(self, call: Callable[..., Awaitable[Any]], places: tuple[int, ...]) -> int:
        if len(places) == 1:
            self._calls.append(_Call(call, places[0], None))
        else:
            self._calls.append(_Call(call, 0, itemgetter(*places) if places else lambda _: ()))
        return _STACK + len(self._calls)


def _by_place(call: Callable[..., Any], takes: Mapping[str, int]) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """Return the call with its values in the order of its parameters. Passing them by name would take twice as long."""
    parameters = inspect.signature(call).parameters
    if parameters.keys() == takes.keys() and all(it.kind is not it.KEYWORD_ONLY for it in parameters.values()):
        return call, tuple(takes[name] for name in parameters)
    names = tuple(takes)
    return lambda *values: call(**dict(zip(names, values, strict=True))), tuple(takes.values())


def entailed_by(dependant: Dependant, arguments: Mapping[str, Argument]) -> Iterator[Entails]:
    """Yield the documentation that an endpoint's parameters add to it.

    Each parameter comes before the dependencies that it takes.
    """
    assert dependant.call is not None
    hints = get_type_hints(_function_of(dependant.call), include_extras=True)
    dependencies = {each.name: each for each in dependant.dependencies}
    for name in inspect.signature(dependant.call).parameters:
        if name in arguments:
            yield arguments[name].entails
        elif name in dependencies:
            yield from (each for each in metadata_of(hints.get(name)) if isinstance(each, Entails))
            yield from entailed_by(dependencies[name], {})


def metadata_of(hint: Any) -> tuple[Any, ...]:
    """Return the metadata in `Annotated`, after the type."""
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _function_of(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a call runs: `__init__` of a class, or `__call__` of an object that has it."""
    while isinstance(call, partial):
        call = call.func
    if inspect.isclass(call):
        return call.__init__
    return call if inspect.isroutine(call) else type(call).__call__
