"""A Flask site whose users log in with wxauth, through flask-oidc 2. The package provides the route `/login`."""

import os

from flask import Flask, session, url_for
from flask_oidc import OpenIDConnect

app = Flask(__name__)
app.secret_key = os.environ["SESSION_SECRET"]
app.config["OIDC_SCOPES"] = "openid profile"
app.config["OIDC_CLIENT_SECRETS"] = {
    "web": {
        "issuer": os.environ["WXAUTH_ISSUER"],
        "client_id": os.environ["WXAUTH_CLIENT_ID"],
        "client_secret": os.environ["WXAUTH_CLIENT_SECRET"],
    }
}
oidc = OpenIDConnect(app)
oidc.oauth.oidc.client_kwargs["code_challenge_method"] = "S256"


@app.get("/")
def home():
    claims = session.get("oidc_auth_profile")
    return {"user": claims and {"id": claims["sub"], "name": claims.get("name")}}


@app.get("/sign-out")
def sign_out():
    token = session.get("oidc_auth_token", {})
    session.clear()
    return oidc.oauth.oidc.logout_redirect(url_for("home", _external=True), token.get("id_token"))
