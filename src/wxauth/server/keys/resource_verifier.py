"""Verification of the access tokens of resources, which are good at none of our own routes."""

from wxauth.server.core.settings import Settings
from wxauth.server.keys.keyring import KeyRing
from wxauth.tokens.verifier import Verifier


class ResourceVerifier(Verifier):
    """Verifies the tokens of all resources of the settings."""

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        super().__init__(issuer=settings.issuer, audience=settings.audience, keys=keys)
        self._resources = frozenset(each.resource for each in settings.resources)

    def _is_meant(self, audience: object) -> bool:
        return isinstance(audience, str) and audience in self._resources
