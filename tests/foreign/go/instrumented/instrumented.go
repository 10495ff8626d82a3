// Package instrumented replaces the default transport before other packages are initialized, as tracers do.
package instrumented

import "net/http"

type transport struct{ http.RoundTripper }

func init() { http.DefaultTransport = transport{http.DefaultTransport} }
