"""The simulated WeChat's checks of texts, pictures and people.

The verdict on a text depends on its words, and the verdict on a picture depends on what is set for the app. A person's
risk rank depends on the person's name.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from wxauth_desk.wechat.api_calls import Answer, Call, new_rid, ok, require, text_in
from wxauth_desk.wechat.controls import AppState
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.issued import IssuedSessionKeys
from wxauth_desk.wechat.people import risk_of
from wxauth_desk.wechat.push import CHECKED, Push, PushRequest, make_verdict_message

# An escaped backslash before a u does not match.
_JSON_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u")
_PASS_VERDICT: Final = ("pass", 100)  # `suggest` and `label` of a text without any of the words below
# If a text contains several of these words, the first one decides.
_TEXT_VERDICTS: Final = {
    "risky": ("risky", 20006),
    "违规": ("risky", 20006),
    "review": ("review", 21000),
    "可疑": ("review", 21000),
}
_PICTURE_LABELS: Final = {"pass": 100, "review": 21000, "risky": 20002}  # by `suggest`
_MAX_VERDICTS: Final = 1000
# Callers send the version as a number or as a string.
_VERSIONS: Final = (2, "2")
_RISK_SCENES: Final = (0, 1)  # a registration and a marketing campaign
_SCENES: Final = (1, 2, 3, 4)  # a profile, a comment, a forum and a social log
_MEDIA_TYPES: Final = (1, 2)  # sound and pictures


@dataclass
class ContentChecks:
    """The checks of texts, pictures and people, and the verdicts on pictures, which are pushed after the response."""

    session_keys: IssuedSessionKeys
    clock: Callable[[], int]
    # These verdicts are not pushed yet, and the oldest is the first. Each is about one picture.
    verdicts: deque[Push] = field(init=False, default_factory=lambda: deque(maxlen=_MAX_VERDICTS))

    def rank_risk(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `getuserriskrank`."""
        values = call.json
        require(text_in(values, "appid") == account.app_id, Errcode.WRONG_APP_ID)
        require(values.get("scene") in _RISK_SCENES and text_in(values, "client_ip"), Errcode.WRONG_BODY)
        person = self.session_keys.active_person(text_in(values, "openid"), account.app_id)
        # The real WeChat, too, spells `unionid` as `unoin_id` here.
        return {"errcode": 0, "errmsg": "getuserriskrank succ", "risk_rank": risk_of(person), "unoin_id": 0}

    def check_text(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `msg_sec_check`."""
        values = call.json
        content = text_in(values, "content")
        require(content, Errcode.WRONG_BODY)
        _check_version_and_scene(values)
        # The real WeChat does not decode \uXXXX, and would check the escapes instead of the text. The simulated WeChat
        # refuses such a body, so that a developer notices the mistake.
        require(not _JSON_ESCAPE.search(call.body), Errcode.WRONG_BODY)
        self.session_keys.active_person(text_in(values, "openid"), account.app_id)  # refuses an inactive person
        text = content + text_in(values, "nickname")
        suggest, label = next((verdict for word, verdict in _TEXT_VERDICTS.items() if word in text), _PASS_VERDICT)
        verdict = {"suggest": suggest, "label": label}
        detail = [
            {"strategy": "keyword", "errcode": 0},
            {"strategy": "content_model", "errcode": 0, **verdict, "prob": 90},
        ]
        return ok(detail=detail, trace_id=new_rid(), result=verdict)

    def check_picture(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `media_check_async`, and store the verdict, which is pushed later."""
        values = call.json
        require(text_in(values, "media_url").startswith(("http://", "https://")), Errcode.WRONG_BODY)
        require(values.get("media_type") in _MEDIA_TYPES, Errcode.WRONG_BODY)
        _check_version_and_scene(values)
        person = self.session_keys.active_person(text_in(values, "openid"), account.app_id)
        trace_id = new_rid()
        suggest = account.picture_verdict
        if suggest is not None:
            label = _PICTURE_LABELS[suggest]
            message = make_verdict_message(trace_id, suggest, label, app_id=account.app_id, now=self.clock())
            request = PushRequest(person=person, app_id=account.app_id, event=CHECKED)
            self.verdicts.append(Push(request, message))
        return ok(trace_id=trace_id)


def _check_version_and_scene(values: Mapping[str, Any]) -> None:
    require(values.get("version") in _VERSIONS and values.get("scene") in _SCENES, Errcode.WRONG_BODY)
