// Package wxauthguardtest issues access tokens to the tests of a service with a guard. It needs no wxauth: an [Issuer] is
// a small server on loopback, which a guard takes for wxauth.
package wxauthguardtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// UserID is the user of a token that names no other one.
	UserID = "01900000-0000-7000-8000-000000000001"
	// SessionID is the session of a token that names no other one.
	SessionID = "01900000-0000-7000-8000-000000000002"
	keyID     = "test"
)

// Issuer issues tokens that a guard admits which was made by wxauthguard.New(issuer.URL).
type Issuer struct {
	URL    string
	key    *ecdsa.PrivateKey
	mutex  sync.Mutex
	banned map[string]bool
	ended  map[string]bool
	roles  map[string][]string
	isAway bool
}

// Token contains the values of a token. Each value that is left out has a default.
type Token struct {
	UserID, SessionID string
	AppID, OpenID     string
	Roles             []string
	ExternalID        string
	Audience          string         // "wxauth" by default
	Scope             string         // of a website or an agent
	ExpiresIn         time.Duration  // 15 minutes by default; a guard allows 30 seconds more
	Claims            map[string]any // other claims, which replace those of the same name
}

// NewIssuer returns an issuer that ends with the test.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &Issuer{key: key, banned: map[string]bool{}, ended: map[string]bool{}, roles: map[string][]string{}}
	server := httptest.NewServer(issuer)
	t.Cleanup(server.Close)
	issuer.URL = server.URL
	return issuer
}

// Authorization returns the Authorization header with such a token.
func (i *Issuer) Authorization(token Token) string { return "Bearer " + i.Token(token) }

// Token returns a signed access token.
func (i *Issuer) Token(token Token) string {
	now := time.Now()
	or := func(value, otherwise string) string {
		if value == "" {
			return otherwise
		}
		return value
	}
	if token.ExpiresIn == 0 {
		token.ExpiresIn = 15 * time.Minute
	}
	claims := map[string]any{
		"iss": i.URL, "aud": or(token.Audience, "wxauth"), "jti": randomID(), "client_id": or(token.AppID, "wxtest"),
		"sub": or(token.UserID, UserID), "sid": or(token.SessionID, SessionID), "openid": or(token.OpenID, "openid-of-a-test"),
		"iat": now.Unix(), "exp": now.Add(token.ExpiresIn).Unix(),
	}
	if len(token.Roles) > 0 {
		claims["roles"] = token.Roles
	}
	if token.ExternalID != "" {
		claims["external_id"] = token.ExternalID
	}
	if token.Scope != "" {
		claims["scope"], claims["app_id"], claims["client_id"] = token.Scope, claims["client_id"], "shop"
	}
	for name, value := range token.Claims {
		claims[name] = value
	}
	signed := encoded(map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": keyID}) + "." + encoded(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, digest[:])
	if err != nil {
		panic(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Ban lets Current refuse this user from now on.
func (i *Issuer) Ban(userID string) { i.change(func() { i.banned[userID] = true }) }

// EndSession lets Current refuse this session from now on.
func (i *Issuer) EndSession(sessionID string) { i.change(func() { i.ended[sessionID] = true }) }

// SetRoles sets the roles that Current finds, whatever the token says.
func (i *Issuer) SetRoles(userID string, roles ...string) {
	i.change(func() { i.roles[userID] = roles })
}

// Away lets the issuer answer no more, as if wxauth could not be reached. The function that it returns ends this.
func (i *Issuer) Away() (end func()) {
	i.change(func() { i.isAway = true })
	return func() { i.change(func() { i.isAway = false }) }
}

func (i *Issuer) change(act func()) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	act()
}

// ServeHTTP answers a guard as wxauth does.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	switch {
	case i.isAway:
		panic(http.ErrAbortHandler) // closes the connection without an answer
	case r.URL.Path == "/.well-known/jwks.json":
		coordinate := func(value []byte) string { return base64.RawURLEncoding.EncodeToString(value) }
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{
			"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": keyID,
			"x": coordinate(i.key.X.FillBytes(make([]byte, 32))), "y": coordinate(i.key.Y.FillBytes(make([]byte, 32))),
		}}})
	case r.URL.Path == "/v1/verify":
		i.verify(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) verify(w http.ResponseWriter, r *http.Request) {
	var claims struct {
		Sub, Sid string
		Roles    []string
	}
	parts := strings.Split(r.Header.Get("Authorization"), ".") // the guard has verified the token
	payload, _ := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if json.Unmarshal(payload, &claims) != nil || i.banned[claims.Sub] || i.ended[claims.Sid] {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if roles, isSet := i.roles[claims.Sub]; isSet {
		claims.Roles = roles
	}
	w.Header().Set("X-Auth-User-ID", claims.Sub)
	w.Header().Set("X-Auth-Session-ID", claims.Sid)
	w.Header().Set("X-Auth-Roles", strings.Join(claims.Roles, ","))
}

func encoded(value any) string {
	document, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(document)
}

func randomID() string {
	random := make([]byte, 16)
	rand.Read(random)
	return hex.EncodeToString(random)
}
