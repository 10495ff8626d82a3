"""The WeChat mini-program login service.

Importing this package removes environment variables that another program may have set, because they would disturb
libraries that wxauth uses.
"""

import os

__version__ = "0.1.0"

_UNWANTED_VARIABLES = {
    # FastAPI imports OpenTelemetry, which reads these variables during its import. If another program has set one of
    # them to a name that is not installed here, the import fails. wxauth sets its own propagators in code.
    "OTEL_PROPAGATORS",
    "OTEL_PYTHON_CONTEXT",
    "OTEL_PYTHON_TRACER_PROVIDER",
    "OTEL_PYTHON_METER_PROVIDER",
    "OTEL_PYTHON_LOGGER_PROVIDER",
    # This is an old name of PROMETHEUS_MULTIPROC_DIR. Even if wxauth does not set the new name, prometheus_client would
    # write its files into the folder that the old name gives.
    "prometheus_multiproc_dir",
}
for _name in os.environ.keys() & _UNWANTED_VARIABLES:
    del os.environ[_name]

# A debugger may have set SSLKEYLOGFILE. If wxauth can't write to the file that this variable names, Python can't create
# a TLS context, so the variable is removed.
if os.environ.get("SSLKEYLOGFILE"):
    try:
        open(os.environ["SSLKEYLOGFILE"], "a").close()
    except OSError:
        del os.environ["SSLKEYLOGFILE"]
