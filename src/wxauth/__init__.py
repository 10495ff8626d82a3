"""wxauth: WeChat mini-program login as a service."""

__version__ = "0.1.0"
