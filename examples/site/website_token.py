"""Print an access token that wxauth has issued to a website, to check that a service rejects it.

The website's client must be public. Its redirect URI is never requested.
"""

import argparse
import base64
import hashlib
import json
import secrets
import sys
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlencode, urlsplit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--issuer", default="http://127.0.0.1:8000")
parser.add_argument("--client-id", default="check")
parser.add_argument("--redirect-uri", default="http://127.0.0.1/callback")
parser.add_argument("--code", default="alice", help="a code of wx.login that can be used twice, as with scripts/dev")
options = parser.parse_args()


def post(path: str, body: bytes, **headers: str) -> dict[str, str]:
    request = urllib.request.Request(options.issuer + path, body, headers)
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        sys.exit(error.read().decode())


user = post("/v1/login", json.dumps({"code": options.code}).encode(), **{"Content-Type": "application/json"})
verifier = secrets.token_urlsafe(32)
digest = hashlib.sha256(verifier.encode()).digest()
parameters = {
    "response_type": "code",
    "client_id": options.client_id,
    "redirect_uri": options.redirect_uri,
    "scope": "openid",
    "state": secrets.token_urlsafe(),
    "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
    "code_challenge_method": "S256",
}
answer = post(
    "/v1/me/authorizations",
    json.dumps({"login_code": options.code, **parameters}).encode(),
    **{"Content-Type": "application/json", "Authorization": f"Bearer {user['access_token']}"},
)
form = {
    "grant_type": "authorization_code",
    "client_id": options.client_id,
    "redirect_uri": options.redirect_uri,
    "code": parse_qs(urlsplit(answer["redirect_to"]).query)["code"][0],
    "code_verifier": verifier,
}
print(post("/v1/token", urlencode(form).encode())["access_token"])
