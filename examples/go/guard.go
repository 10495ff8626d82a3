package main

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

// User is what a good access token says.
type User struct {
	jwt.RegisteredClaims          // Subject is the user's id
	ClientID             string   `json:"client_id"`
	AppID                string   `json:"app_id"` // the app in which the user has this OpenID
	OpenID               string   `json:"openid"`
	ExternalID           *string  `json:"external_id"` // the id where the user was imported from; nil for others
	SessionID            string   `json:"sid"`
	Roles                []string `json:"roles"`
	Scope                *string  `json:"scope"` // what a website or an agent was granted; nil in your mini-programs
}

// Guard admits requests that have a valid access token.
type Guard struct {
	Issuer, Audience string
	Keys             jwt.Keyfunc
}

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
		user.AppID = user.ClientID // of a login in the mini-program
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
	}
	return nil
}

type key struct{}

// Require demands a valid token of a user with all of these roles. In the handler, UserOf returns that user.
func (g Guard) Require(next http.HandlerFunc, roles ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			refuse(w, http.StatusUnauthorized, "missing_token", "Bearer")
			return
		}
		user, err := g.Verify(token)
		if errors.Is(err, errNoKeys) {
			w.Header().Set("Retry-After", "5")
			refuse(w, http.StatusServiceUnavailable, "keys_unavailable", "")
			return
		}
		if err != nil {
			log.Printf("a token was refused: %v", err)
			refuse(w, http.StatusUnauthorized, "invalid_token", `Bearer error="invalid_token"`)
			return
		}
		for _, role := range roles {
			if !slices.Contains(user.Roles, role) {
				refuse(w, http.StatusForbidden, "insufficient_role", `Bearer error="insufficient_scope"`)
				return
			}
		}
		next(w, r.WithContext(context.WithValue(r.Context(), key{}, user)))
	}
}

// RequireOwn demands, as Require, a user of your own mini-programs: not of a website.
func (g Guard) RequireOwn(next http.HandlerFunc, roles ...string) http.HandlerFunc {
	return g.Require(func(w http.ResponseWriter, r *http.Request) {
		if UserOf(r).Scope != nil {
			refuse(w, http.StatusForbidden, "insufficient_scope", `Bearer error="insufficient_scope"`)
			return
		}
		next(w, r)
	}, roles...)
}

func refuse(w http.ResponseWriter, status int, code, challenge string) {
	if challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	answer(w, status, map[string]any{"status": status, "code": code})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// UserOf is the caller of a guarded handler.
func UserOf(r *http.Request) *User {
	return r.Context().Value(key{}).(*User)
}
