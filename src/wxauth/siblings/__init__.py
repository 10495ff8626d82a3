"""The routes for siblings (services that verify wxauth's tokens): about tokens and users, and for calls to WeChat."""
