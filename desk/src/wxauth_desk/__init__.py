"""wxauth-desk: WeChat, a phone and example sites on a laptop, simulated. Production uses none of it."""

__version__ = "0.1.0"
