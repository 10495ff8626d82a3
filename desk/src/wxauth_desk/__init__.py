"""A simulated WeChat, phone and example sites for a laptop (wxauth-desk). Production uses none of it."""

__version__ = "0.1.0"
