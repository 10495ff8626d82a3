"""Errors with a text that wxauth can translate."""

from wxauth.i18n import Text


class TextError(Exception):
    """An error with a text that wxauth can translate."""

    def __init__(self, text: Text) -> None:
        self.text = text
        super().__init__(text)


class WrongValue(TextError, ValueError):
    """A value breaks a rule. The text states the rule, and never contains the value."""
