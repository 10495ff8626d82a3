package wxauth

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const clockSkew = 30 * time.Second

// User contains the claims of a valid access token.
type User struct {
	jwt.RegisteredClaims          // Subject is the user's id
	ClientID             string   `json:"client_id"`
	AppID                string   `json:"app_id"` // the app in which the user has this OpenID
	OpenID               string   `json:"openid"`
	ExternalID           *string  `json:"external_id"` // the user's id in the system from which they were imported, or nil
	SessionID            string   `json:"sid"`
	Roles                []string `json:"roles"`
	Scope                *string  `json:"scope"` // the scopes of a website or an agent; nil in your mini-programs
	hasScope             bool     // also true if the scope is null
}

// UnmarshalJSON reads the claims by their exact names. encoding/json would also accept ROLES as roles.
func (u *User) UnmarshalJSON(document []byte) error {
	var claims map[string]json.RawMessage
	if err := json.Unmarshal(document, &claims); err != nil {
		return err
	}
	known := map[string]json.RawMessage{}
	for _, name := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "app_id", "openid",
		"external_id", "sid", "roles"} {
		if value, isSet := claims[name]; isSet {
			known[name] = value
		}
	}
	document, err := json.Marshal(known)
	if err != nil {
		return err
	}
	type plain User // has no UnmarshalJSON
	if err := json.Unmarshal(document, (*plain)(u)); err != nil {
		return err
	}
	var scope json.RawMessage
	if scope, u.hasScope = claims["scope"]; u.hasScope {
		u.Scope = new(string)
		if json.Unmarshal(scope, u.Scope) != nil {
			*u.Scope = string(scope) // not a text, so it contains no scope that you know
		}
	}
	return nil
}

// Guard admits requests that have a valid access token of your own apps.
type Guard struct {
	Issuer, Audience string
	Keys             jwt.Keyfunc
	Websites         bool // also admit websites and agents, whose users have a Scope
}

var errInsufficientScope = errors.New("the token of a website or an agent")

// Verify returns the user of a valid token.
func (g Guard) Verify(token string) (*User, error) {
	user := &User{}
	if len(token) > 8192 {
		return nil, errors.New("the token is too long")
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	parsed, err := parser.ParseWithClaims(token, user, g.Keys)
	if err != nil {
		return nil, err
	}
	if user.AppID == "" {
		user.AppID = user.ClientID // the token of a login in the mini-program has no app_id
	}
	return user, g.check(parsed.Header, user)
}

func (g Guard) check(header map[string]any, user *User) error {
	now := time.Now()
	kind, _ := header["typ"].(string)
	kind = strings.TrimPrefix(strings.ToLower(kind), "application/")
	_, hasCrit := header["crit"]
	switch {
	case kind != "at+jwt" || hasCrit:
		return errors.New("not an access token")
	case user.Issuer != g.Issuer || !slices.Contains(user.Audience, g.Audience):
		return errors.New("iss or aud is another")
	case user.Subject == "" || user.ID == "" || user.ClientID == "" || user.OpenID == "" || user.SessionID == "":
		return errors.New("a claim is missing")
	case user.IssuedAt == nil || user.IssuedAt.After(now.Add(clockSkew)):
		return errors.New("iat is missing or in the future")
	case user.NotBefore != nil && user.NotBefore.After(now.Add(clockSkew)):
		return errors.New("nbf is in the future")
	case user.ExpiresAt == nil || !user.ExpiresAt.After(now.Add(-clockSkew)):
		return errors.New("the token has expired")
	case user.hasScope && !g.Websites:
		return errInsufficientScope
	}
	return nil
}

// Refusal is the reason for refusing a request, with the status of the response, which is 400, 401, 403 or
// 503.
type Refusal struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`
	challenge string
}

// Write sends the response to the refused request.
func (r Refusal) Write(w http.ResponseWriter) {
	if r.challenge != "" {
		w.Header().Set("WWW-Authenticate", r.challenge)
	}
	if r.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(r.Status)
	json.NewEncoder(w).Encode(r)
}

// Caller returns the user of the request's token. If the token is not valid, or the user does not have all of these
// roles, Caller returns a Refusal instead.
func (g Guard) Caller(r *http.Request, roles ...string) (*User, *Refusal) {
	if len(r.Header["Authorization"]) > 1 { // a program in front of this one might have read the other token
		return nil, &Refusal{http.StatusBadRequest, "invalid_request", `Bearer error="invalid_request"`}
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.Trim(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, &Refusal{http.StatusUnauthorized, "missing_token", "Bearer"}
	}
	user, err := g.Verify(token)
	if errors.Is(err, errNoKeys) {
		return nil, &Refusal{http.StatusServiceUnavailable, "keys_unavailable", ""}
	}
	if errors.Is(err, errInsufficientScope) {
		return nil, &Refusal{http.StatusForbidden, "insufficient_scope", `Bearer error="insufficient_scope"`}
	}
	if err != nil {
		log.Printf("a token was refused: %v", err)
		return nil, &Refusal{http.StatusUnauthorized, "invalid_token", `Bearer error="invalid_token"`}
	}
	for _, role := range roles {
		if !slices.Contains(user.Roles, role) {
			return nil, &Refusal{http.StatusForbidden, "insufficient_role", ""}
		}
	}
	return user, nil
}

type key struct{}

// Require returns a handler that admits only requests with a Caller. In your handler, UserOf returns this user.
func (g Guard) Require(next http.HandlerFunc, roles ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, refusal := g.Caller(r, roles...)
		if refusal != nil {
			refusal.Write(w)
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), key{}, user)))
	}
}

// UserOf returns the user who sent the request to a guarded handler.
func UserOf(r *http.Request) *User {
	return r.Context().Value(key{}).(*User)
}
