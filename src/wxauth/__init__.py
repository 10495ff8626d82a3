"""wxauth: WeChat mini-program login as a service, and the guard for the services beside it."""

__version__ = "0.1.0"
