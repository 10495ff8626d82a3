"""A Flask site whose users log in with wxauth, through Flask-pyoidc 3."""

import os

from flask import Flask, redirect, session
from flask_pyoidc import OIDCAuthentication
from flask_pyoidc.provider_configuration import ClientMetadata, ProviderConfiguration

app = Flask(__name__)
app.secret_key = os.environ["SESSION_SECRET"]
app.config["OIDC_REDIRECT_URI"] = os.environ["SITE_URL"] + "/callback"
wxauth = ProviderConfiguration(
    issuer=os.environ["WXAUTH_ISSUER"],
    client_metadata=ClientMetadata(os.environ["WXAUTH_CLIENT_ID"], os.environ["WXAUTH_CLIENT_SECRET"]),
    auth_request_params={"scope": ["openid", "profile"]},
)
auth = OIDCAuthentication({"wxauth": wxauth}, app)


@app.get("/login")
@auth.oidc_auth("wxauth")
def login():
    return redirect("/")


@app.get("/logout")
@auth.oidc_logout
def logout():
    return redirect("/")


@app.get("/")
def home():
    claims = session.get("userinfo")
    return {"user": claims and {"id": claims["sub"], "name": claims.get("name")}}


@auth.error_view
def refused(error, error_description=None):
    return {"error": error}, 403
