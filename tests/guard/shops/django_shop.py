"""The shop in Django and in REST framework, as a WSGI and as an ASGI application."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import SimpleNamespace
from typing import Any

import django.conf
import django.core.handlers.asgi
import django.core.handlers.wsgi
import django.urls
from asgiref.sync import iscoroutinefunction
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from tests.guard.shops import GUARD, OTHER_GUARD, Shop, client_by_asgi, client_by_wsgi, seen, trusted
from wxauth_guard import WxAuthError, require_roles

URLS = "tests_guard_shop_urls"


def set_up() -> None:
    if not django.conf.settings.configured:
        django.conf.settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="no secret",
            ROOT_URLCONF=URLS,
            MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
            INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
            WXAUTH_REFUSE="tests.guard.shops.django_shop.refuse",
            REST_FRAMEWORK={
                "DEFAULT_AUTHENTICATION_CLASSES": [
                    "tests.guard.shops.rest_login.Login",
                    "tests.guard.shops.rest_login.StaffLogin",
                ],
                "EXCEPTION_HANDLER": "wxauth_guard.rest_framework.exception_handler",
                "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
                "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
                "DEFAULT_THROTTLE_RATES": {"user": "1000/s"},
                "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            },
        )
        django.setup()


def refuse(request: HttpRequest, refusal: WxAuthError) -> HttpResponse:
    """Answer refusals on one path in the shop's envelope, and on all others as the guard does."""
    from wxauth_guard.django import problem_response

    if request.path == "/enveloped":
        return JsonResponse({"code": refusal.code}, status=418)
    return problem_response(request, refusal)


def passed_on(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a coroutine function, as a project's own decorators do."""
    assert iscoroutinefunction(view)

    @wraps(view)
    async def answer(*args: Any, **kwargs: Any) -> Any:
        return await view(*args, **kwargs)

    return answer


def plain_routes() -> list[Any]:
    from wxauth_guard.django import bearer

    @bearer(GUARD)
    def function(request: Any) -> HttpResponse:
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD)
    async def coroutine(request: Any) -> HttpResponse:
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD)
    @passed_on
    async def above_another(request: Any) -> HttpResponse:
        return HttpResponse(seen(request.wxauth))

    @passed_on
    @bearer(GUARD)
    async def below_another(request: Any) -> HttpResponse:
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD)
    def argument(request: Any, number: int) -> HttpResponse:
        assert number == 7
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD)
    def stream(request: Any) -> StreamingHttpResponse:
        async def letters() -> AsyncIterator[str]:
            for letter in text:
                yield letter

        text = seen(request.wxauth)
        return StreamingHttpResponse(letters() if isinstance(request, ASGIRequest) else iter(text))

    @bearer(GUARD, "clerk")
    def role(request: Any) -> HttpResponse:
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD)
    async def role_in_view(request: Any) -> HttpResponse:
        require_roles(request.wxauth, "clerk")
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD, optional=True)
    def optional(request: Any) -> HttpResponse:
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD, optional=True)
    async def optional_coroutine(request: Any) -> HttpResponse:
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD, optional=True)
    @csrf_exempt
    def optional_exempt(request: Any) -> HttpResponse:
        return HttpResponse(seen(request.wxauth))

    @bearer(GUARD)
    def own_error(request: Any) -> HttpResponse:
        raise LookupError("gone")

    @bearer(GUARD)
    async def another_token(request: Any) -> HttpResponse:
        await GUARD.verify("not.a.token")
        return HttpResponse("never")

    class Answering(View):
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse(seen(request.wxauth))

        post = get

    class AnsweringLater(View):
        async def get(self, request: Any) -> HttpResponse:
            return HttpResponse(seen(request.wxauth))

        post = get

    @bearer(GUARD)
    class Whole(Answering):
        pass

    class Inheriting(Whole):
        http_method_names = ["get", "options"]  # noqa: RUF012 - as Django's guide shows it

    @bearer(GUARD)
    class WholeLater(AnsweringLater):
        pass

    @method_decorator(bearer(GUARD), name="dispatch")
    class Dispatch(Answering):
        pass

    @method_decorator(bearer(GUARD), name="dispatch")
    class DispatchLater(AnsweringLater):
        pass

    class Method(View):
        @bearer(GUARD)
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse(seen(request.wxauth))

    class MethodLater(View):
        @bearer(GUARD)
        async def get(self, request: Any) -> HttpResponse:
            return HttpResponse(seen(request.wxauth))

    class Decorated(View):
        @method_decorator(bearer(GUARD))
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse(seen(request.wxauth))

    return [
        django.urls.path("function", function),
        django.urls.path("coroutine", coroutine),
        django.urls.path("above-another", above_another),
        django.urls.path("below-another", below_another),
        django.urls.path("argument/<int:number>", argument),
        django.urls.path("stream", stream),
        django.urls.path("role", role),
        django.urls.path("role-in-view", role_in_view),
        django.urls.path("optional", optional),
        django.urls.path("optional-coroutine", optional_coroutine),
        django.urls.path("optional-exempt", optional_exempt),
        django.urls.path("current", bearer(GUARD.current)(Answering.as_view())),
        django.urls.path("other", bearer(OTHER_GUARD)(AnsweringLater.as_view())),
        django.urls.path("own-error", own_error),
        django.urls.path("another-token", another_token),
        django.urls.path("class", Whole.as_view()),
        django.urls.path("class-later", WholeLater.as_view()),
        django.urls.path("inheriting", Inheriting.as_view()),
        django.urls.path("as-view", bearer(GUARD)(Answering.as_view())),
        django.urls.path("as-view-later", bearer(GUARD)(AnsweringLater.as_view())),
        django.urls.path("dispatch", Dispatch.as_view()),
        django.urls.path("dispatch-later", DispatchLater.as_view()),
        django.urls.path("method", Method.as_view()),
        django.urls.path("method-later", MethodLater.as_view()),
        django.urls.path("method-decorator", Decorated.as_view()),
        django.urls.path("enveloped", bearer(GUARD)(Answering.as_view())),
    ]


def rest_routes() -> list[Any]:
    from rest_framework.permissions import AllowAny, IsAdminUser
    from rest_framework.response import Response
    from rest_framework.views import APIView

    from wxauth_guard.django import bearer

    class Answering(APIView):
        def get(self, request: Any, number: int = 7) -> Response:
            return Response(seen(request.user))

        post = get

    class RoleInView(APIView):
        def get(self, request: Any) -> Response:
            require_roles(request.user.wxauth, "clerk")
            return Response(seen(request.user))

    class Optional(APIView):
        permission_classes = (AllowAny,)

        def get(self, request: Any) -> Response:
            return Response(seen(request.user if request.user.is_authenticated else None))

    class Staff(APIView):
        permission_classes = (IsAdminUser,)

        def get(self, request: Any) -> Response:
            return Response("accounts")

    @bearer(GUARD)
    class Decorated(APIView):
        authentication_classes = ()
        permission_classes = (AllowAny,)

        def get(self, request: Any) -> Response:
            return Response(seen(request.wxauth))

    return [
        django.urls.path("function", Answering.as_view()),
        django.urls.path("argument/<int:number>", Answering.as_view()),
        django.urls.path("role-in-view", RoleInView.as_view()),
        django.urls.path("optional", Optional.as_view()),
        django.urls.path("staff", Staff.as_view()),
        django.urls.path("class", Decorated.as_view()),
    ]


def served(
    client_of: Callable[[Any], Any], handler: Callable[[], Any], routes: Callable[[], list[Any]]
) -> Callable[[], AbstractAsyncContextManager[Shop]]:
    @asynccontextmanager
    async def serve() -> AsyncIterator[Shop]:
        set_up()
        patterns = routes()
        sys.modules[URLS] = SimpleNamespace(urlpatterns=patterns)  # type: ignore[assignment]
        django.urls.clear_url_caches()
        paths = [f"/{pattern.pattern}".replace("<int:number>", "7") for pattern in patterns]
        async with client_of(handler()) as client, trusted(client, paths) as shop:
            yield shop

    return serve


by_wsgi = served(client_by_wsgi, django.core.handlers.wsgi.WSGIHandler, plain_routes)
by_asgi = served(client_by_asgi, django.core.handlers.asgi.ASGIHandler, plain_routes)
rest_by_wsgi = served(client_by_wsgi, django.core.handlers.wsgi.WSGIHandler, rest_routes)
