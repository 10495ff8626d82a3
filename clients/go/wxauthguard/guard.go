// Package wxauthguard protects the routes of a service with wxauth's access tokens.
package wxauthguard

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Version is the version of wxauth that this package comes with.
const Version = "0.1.0"

const logPause = time.Minute // between two log lines about the same cause

// Guard admits the callers whose access token is valid. Create one guard for the whole process, because each guard has
// its own copy of the public keys. Its methods can be called by many goroutines at once.
type Guard struct {
	*shared
	asks, optional bool
}

// shared is what a guard and the guards that it makes have in common.
type shared struct {
	issuer, audience, internalURL string
	websites, orOffline           bool
	refuse                        func(http.ResponseWriter, *http.Request, *Refusal)
	keys                          *keys
	authority                     *authority
	logger                        *slog.Logger
	mutex                         sync.Mutex
	loggedAt                      map[string]time.Time
}

// An Option changes a new guard.
type Option func(*shared)

// Audience sets the AUDIENCE setting of wxauth, or the URL of a resource, whose tokens have scopes. The default is
// "wxauth".
func Audience(audience string) Option { return func(s *shared) { s.audience = audience } }

// Websites lets the guard also admit the tokens of websites and agents, whose users have a Scope.
func Websites() Option { return func(s *shared) { s.websites = true } }

// OrOffline lets [Guard.Current] admit a valid token while wxauth is away. The user's IsCurrent is then false.
func OrOffline() Option { return func(s *shared) { s.orOffline = true } }

// InternalURL sets the address of wxauth in your own network, which may use plain HTTP. The issuer stays the public one.
func InternalURL(address string) Option { return func(s *shared) { s.internalURL = address } }

// Refusals sets what [Guard.Middleware] writes to a refused request, for example the envelope of your own project. The
// headers WWW-Authenticate and Retry-After are already set.
func Refusals(write func(http.ResponseWriter, *http.Request, *Refusal)) Option {
	return func(s *shared) { s.refuse = write }
}

// Logger sets where the guard says why it refuses tokens and cannot read keys. The default is [slog.Default].
func Logger(logger *slog.Logger) Option { return func(s *shared) { s.logger = logger } }

// New returns a guard for the tokens of this issuer, which is the ISSUER setting of wxauth. It panics if a URL cannot be
// used: the issuer must be an https URL, or http on loopback, without a slash at the end.
func New(issuer string, options ...Option) *Guard {
	s := &shared{issuer: issuer, audience: "wxauth", loggedAt: map[string]time.Time{}}
	for _, set := range options {
		set(s)
	}
	if !isPlain(issuer) || !isSecure(issuer) {
		panic("wxauthguard: the issuer must be an https URL, or http on loopback, without user, query, fragment or a slash at the end")
	}
	if s.internalURL != "" && !isPlain(s.internalURL) {
		panic("wxauthguard: InternalURL must be an http or https URL without user, query, fragment or a slash at the end")
	}
	if s.audience == "" {
		panic("wxauthguard: the audience is empty")
	}
	if s.refuse == nil {
		s.refuse = writeProblem
	}
	base := s.internalURL
	if base == "" {
		base = issuer
	}
	s.keys = &keys{url: base + keysPath, warn: s.warn}
	s.authority = newAuthority(base, s.orOffline, s.query())
	return &Guard{shared: s}
}

// Current returns a guard that also asks wxauth about each token, so that a ban or a sign-out counts at once. If wxauth
// does not answer within 2 seconds, it refuses with [ErrUnavailable], unless the guard has the option [OrOffline].
func (g *Guard) Current() *Guard {
	copied := *g
	copied.asks = true
	return &copied
}

// Optional returns a guard that also admits requests without a bearer token, whose user is nil. It refuses a wrong
// token, and it refuses guests where roles are required.
func (g *Guard) Optional() *Guard {
	copied := *g
	copied.optional = true
	return &copied
}

// Verify returns the user of the token in an Authorization header, who has all of these roles. It returns an error that
// is [ErrRefused], [ErrForbidden] or [ErrUnavailable]. [Problem] makes a response of it.
func (g *Guard) Verify(ctx context.Context, authorization string, roles ...string) (*User, error) {
	if slices.Contains(roles, "") {
		panic("wxauthguard: a role is empty")
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	token = strings.Trim(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		if g.optional && len(roles) == 0 {
			return nil, nil
		}
		return nil, refusal("missing_token", "send the access token as 'Authorization: Bearer ...'")
	}
	user, err := g.user(ctx, token)
	if err != nil {
		return nil, err
	}
	for _, role := range roles {
		if !slices.Contains(user.Roles, role) {
			return nil, refusal("insufficient_role", "this request requires the role "+role)
		}
	}
	return user, nil
}

func (g *Guard) user(ctx context.Context, token string) (*User, *Refusal) {
	user, refused := g.verified(ctx, token, time.Now())
	if refused == nil && g.asks {
		var roles []string
		if roles, refused = g.authority.ask(ctx, token, user); refused == nil {
			user.Roles, user.IsCurrent = roles, true
		}
	}
	if refused == nil {
		return user, nil
	}
	if refused.logged != "" {
		g.warnOnce(refused.Detail, refused.logged)
	}
	if g.orOffline && refused.isOutage {
		return user, nil
	}
	return nil, refused
}

// Middleware returns a handler that calls the next one only for a user who has all of these roles. The next handler
// reads the user with [UserFrom].
func (g *Guard) Middleware(next http.Handler, roles ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := g.ofRequest(r, roles)
		if err != nil {
			refused := err.(*Refusal)
			refused.setHeaders(w.Header())
			g.refuse(w, r, refused)
			return
		}
		next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), user)))
	})
}

func (g *Guard) ofRequest(r *http.Request, roles []string) (*User, error) {
	headers := r.Header["Authorization"]
	if len(headers) > 1 { // a program in front of this one might have read the other token
		refused := refusal("invalid_request", "there are two Authorization headers")
		refused.Status = http.StatusBadRequest
		return nil, refused
	}
	return g.Verify(r.Context(), r.Header.Get("Authorization"), roles...)
}

type userKey struct{}

// NewContext returns a context with this user, for frameworks without [Guard.Middleware].
func NewContext(ctx context.Context, user *User) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

// UserFrom returns the user of a guarded request, or nil for a guest of an optional guard.
func UserFrom(ctx context.Context) *User {
	user, _ := ctx.Value(userKey{}).(*User)
	return user
}

func (s *shared) allowsScope() bool { return s.websites || s.isOfResource() }

func (s *shared) isOfResource() bool {
	return strings.HasPrefix(s.audience, "https://") || strings.HasPrefix(s.audience, "http://")
}

// query returns the query of /v1/verify with which wxauth admits the tokens that this guard admits.
func (s *shared) query() string {
	switch {
	case s.isOfResource():
		return "?" + url.Values{"resource": {s.audience}}.Encode()
	case s.websites:
		return "?websites=true"
	}
	return ""
}

// warnOnce logs a line unless the same cause was logged within a minute. The causes are fixed texts.
func (s *shared) warnOnce(cause, line string) {
	now := time.Now()
	s.mutex.Lock()
	last, isKnown := s.loggedAt[cause]
	isDue := !isKnown || now.Sub(last) >= logPause
	if isDue {
		s.loggedAt[cause] = now
	}
	s.mutex.Unlock()
	if isDue {
		s.warn(line)
	}
}

func (s *shared) warn(line string) {
	logger := s.logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.Warn(line)
}

// isPlain returns whether a URL is http or https and has only a host, a port and a path without a slash at the end.
func isPlain(address string) bool {
	parsed, err := url.Parse(address)
	return err == nil && (parsed.Scheme == "http" || parsed.Scheme == "https") && parsed.Host != "" &&
		!strings.ContainsAny(address, " \t\r\n?#@\\") && !strings.HasSuffix(address, "/")
}

// isSecure returns whether nobody on the network can alter the responses of this URL.
func isSecure(address string) bool {
	parsed, err := url.Parse(address)
	if err != nil {
		return false
	}
	host := parsed.Hostname()
	isLoopback := host == "localhost" || net.ParseIP(host).IsLoopback()
	return parsed.Scheme == "https" || isLoopback
}
