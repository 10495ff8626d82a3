"""The parts that call WeChat, as dependencies of routes."""

from typing import Annotated

from fastapi import Depends

from wxauth.server.web.dependencies import provide
from wxauth.server.wechat.api import WeChatApi
from wxauth.server.wechat.client import WeChat
from wxauth.server.wechat.wechat_tokens import WeChatTokens

WeChatDep = Annotated[WeChat, Depends(provide(WeChat))]
WeChatApiDep = Annotated[WeChatApi, Depends(provide(WeChatApi))]
WeChatTokensDep = Annotated[WeChatTokens, Depends(provide(WeChatTokens))]
