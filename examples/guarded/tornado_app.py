from tornado.web import Application, RequestHandler

from wxauth.guard import BearerGuard, WxAuthError, problem

guard = BearerGuard(issuer="http://127.0.0.1:8000")


class Guarded(RequestHandler):
    async def prepare(self):
        try:
            self.user = await guard.verify(guard.bearer_token(*self.request.headers.get_list("Authorization")))
        except WxAuthError as refusal:
            body, status, headers = problem(refusal, self.request.headers)
            self.set_status(status)
            for name, value in headers.items():
                self.set_header(name, value)
            self.finish(body)


class Orders(Guarded):
    def get(self):
        self.write({"user": str(self.user.id), "openid": self.user.openid})


app = Application([("/orders", Orders)])
