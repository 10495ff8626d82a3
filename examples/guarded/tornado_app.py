from tornado.web import Application, RequestHandler

from wxauth_guard import BearerGuard, WxAuthError, problem, require_roles

guard = BearerGuard(issuer="http://127.0.0.1:8000")


class Guarded(RequestHandler):
    """The base class of handlers that require a login with WeChat.

    Handlers of public pages, static files and other logins do not need it.
    """

    roles = ()

    async def prepare(self):
        if self.request.method == "OPTIONS":
            return  # the preflight request of a browser contains no token
        try:
            self.wxauth = await guard.find_user(*self.request.headers.get_list("Authorization"))
            require_roles(self.wxauth, *self.roles)
        except WxAuthError as refusal:
            body, status, headers = problem(refusal, self.request.headers)
            self.set_status(status)
            for name, value in headers.items():
                self.set_header(name, value)
            self.finish(body)


class Orders(Guarded):
    def get(self):
        self.write({"user": str(self.wxauth.id), "openid": self.wxauth.openid})


class Order(Guarded):
    roles = ("clerk",)

    def delete(self, number):
        self.set_status(204)


app = Application([("/orders", Orders), ("/orders/([0-9]+)", Order)])
