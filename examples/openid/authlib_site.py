"""A Flask site whose users log in with wxauth, through Authlib 1.9."""

import os

from authlib.integrations.flask_client import OAuth, OAuthError
from flask import Flask, redirect, session, url_for

app = Flask(__name__)
app.secret_key = os.environ["SESSION_SECRET"]
wxauth = OAuth(app).register(
    "wxauth",
    client_id=os.environ["WXAUTH_CLIENT_ID"],
    client_secret=os.environ["WXAUTH_CLIENT_SECRET"],
    server_metadata_url=os.environ["WXAUTH_ISSUER"] + "/.well-known/openid-configuration",
    client_kwargs={"scope": "openid profile", "code_challenge_method": "S256"},
)


@app.get("/login")
def login():
    return wxauth.authorize_redirect(url_for("callback", _external=True))


@app.get("/callback")
def callback():
    token = wxauth.authorize_access_token()
    claims = token["userinfo"]
    session.update(user={"id": claims["sub"], "name": claims.get("name")}, id_token=token["id_token"])
    return redirect("/")


@app.get("/logout")
def logout():
    hint = session.pop("id_token", None)
    session.clear()
    return wxauth.logout_redirect(url_for("home", _external=True), hint)


@app.get("/")
def home():
    return {"user": session.get("user")}


@app.errorhandler(OAuthError)
def refused(error):
    return {"error": error.error}, 403
