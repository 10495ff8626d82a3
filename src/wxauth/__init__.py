"""wxauth: WeChat mini-program login as a service."""

import os

__version__ = "0.1.0"

for _name in os.environ.keys() & {
    "OTEL_PROPAGATORS",
    "OTEL_PYTHON_CONTEXT",
    "OTEL_PYTHON_TRACER_PROVIDER",
    "OTEL_PYTHON_METER_PROVIDER",
    "OTEL_PYTHON_LOGGER_PROVIDER",
    "prometheus_multiproc_dir",
}:
    # FastAPI imports OpenTelemetry, which reads these as it is imported, and fails if another program has set them to a
    # name that is not installed here. The service names its own. The last is an old name, which wxauth never sets.
    del os.environ[_name]

if os.environ.get("SSLKEYLOGFILE"):  # of a debugger: without this file, Python makes no TLS context
    try:
        open(os.environ["SSLKEYLOGFILE"], "a").close()
    except OSError:
        del os.environ["SSLKEYLOGFILE"]
