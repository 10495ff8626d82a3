"""wxauth: WeChat mini-program login as a service, and a guard with which other services check its access tokens."""

__version__ = "0.1.0"
