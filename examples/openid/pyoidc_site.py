"""A Flask site whose users log in with wxauth, through pyoidc (`oic` 1.6). Each login has its own pyoidc client."""

import os
import secrets

from flask import Flask, redirect, request, session
from oic.oic import Client
from oic.oic.message import AuthorizationResponse, EndSessionRequest, RegistrationResponse
from oic.utils.authn.client import CLIENT_AUTHN_METHOD

app = Flask(__name__)
app.secret_key = os.environ["SESSION_SECRET"]
CALLBACK = os.environ["SITE_URL"] + "/callback"


def wxauth():
    client = Client(client_authn_method=CLIENT_AUTHN_METHOD, config={"code_challenge": {"method": "S256"}})
    client.provider_config(os.environ["WXAUTH_ISSUER"])
    known = {"client_id": os.environ["WXAUTH_CLIENT_ID"], "client_secret": os.environ["WXAUTH_CLIENT_SECRET"]}
    client.store_registration_info(RegistrationResponse(**known, redirect_uris=[CALLBACK]))
    return client


@app.get("/login")
def login():
    client = wxauth()
    challenge, verifier = client.add_code_challenge()
    session.update(state=secrets.token_urlsafe(), nonce=secrets.token_urlsafe(), verifier=verifier)
    asked = {"response_type": "code", "scope": "openid profile", "redirect_uri": CALLBACK, "state": session["state"]}
    asked |= {"nonce": session["nonce"], **challenge}
    return redirect(client.construct_AuthorizationRequest(request_args=asked).request(client.authorization_endpoint))


@app.get("/callback")
def callback():
    asked = {name: session.pop(name, None) for name in ("state", "nonce", "verifier")}
    client = wxauth()
    answer = client.parse_response(AuthorizationResponse, info=request.query_string.decode(), sformat="urlencoded")
    if "error" in answer or not asked["state"] or answer.get("state") != asked["state"]:
        return {"error": answer.get("error", "another state")}, 403
    redeemed = {"code": answer["code"], "redirect_uri": CALLBACK, "code_verifier": asked["verifier"]}
    token = client.do_access_token_request(state=asked["state"], request_args=redeemed)
    if "error" in token:
        return {"error": token["error"]}, 403
    client.verify_id_token(token["id_token"], {"nonce": asked["nonce"]})
    claims = token["id_token"]
    session.update(user={"id": claims["sub"], "name": claims.get("name")}, id_token=token["id_token_jwt"])
    return redirect("/")


@app.get("/logout")
def logout():
    hint = session.get("id_token")
    session.clear()
    asked = EndSessionRequest(id_token_hint=hint, post_logout_redirect_uri=os.environ["SITE_URL"] + "/")
    return redirect(asked.request(wxauth().end_session_endpoint))


@app.get("/")
def home():
    return {"user": session.get("user")}
