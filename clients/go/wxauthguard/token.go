package wxauthguard

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	maxToken  = 8192 // characters
	clockSkew = 30   // seconds, for exp, iat and nbf
	maxShown  = 200  // characters of a value in the log
	signature = 86   // characters of a signature of ES256
)

var (
	uuidForm  = regexp.MustCompile(`\A[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\z`)
	base64url = base64.RawURLEncoding.Strict() // the unused bits of the last character must be zero
)

// User is the user behind a valid token.
type User struct {
	ID         string         // a UUID, the key of your own data
	SessionID  string         // a UUID, one for each login on a device
	ClientID   string         // the AppID of the user's app, or the client of a website or an agent
	AppID      string         // the app in which the user has this OpenID
	OpenID     string         // empty for a program that describes itself by a document
	ExternalID *string        // the user's id in the system from which they were imported, or nil
	Roles      []string       // with Current, the roles of now, and otherwise those of the last login or refresh
	Scope      []string       // the scopes of a website or an agent; nil in your own apps
	ExpiresAt  time.Time      // when the token expires
	Claims     map[string]any // all claims; numbers are of the type json.Number
	IsCurrent  bool           // whether wxauth has confirmed the session a moment ago
}

// HasRole returns whether the user has this role.
func (u *User) HasRole(role string) bool { return slices.Contains(u.Roles, role) }

func (g *Guard) verified(ctx context.Context, token string, now time.Time) (*User, *Refusal) {
	if len(token) > maxToken {
		return nil, invalidToken("the token is too long")
	}
	parts := strings.Split(token, ".")
	// base64 would skip a line end.
	if len(parts) != 3 || len(parts[2]) != signature || strings.ContainsAny(token, "\r\n") {
		return nil, invalidToken("the token is not a JWS in compact form with an ES256 signature")
	}
	header, refused := partOf(parts[0])
	if refused != nil {
		return nil, refused
	}
	kid, refused := keyID(header)
	if refused != nil {
		return nil, refused
	}
	key, refused := g.keys.find(ctx, kid)
	if refused != nil {
		return nil, refused
	}
	if key == nil {
		return nil, invalidToken("the token names a key that is not known").
			because("its kid is %s, which is no key of %s", shown(kid), shown(g.issuer))
	}
	signed, err := base64url.DecodeString(parts[2])
	if err != nil {
		return nil, invalidToken("a part of the token is not base64url")
	}
	digest := sha256.Sum256([]byte(token[:len(token)-1-signature]))
	r, s := new(big.Int).SetBytes(signed[:32]), new(big.Int).SetBytes(signed[32:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		return nil, invalidToken("the signature does not fit").
			because("its signature does not fit the key %s of %s", shown(kid), shown(g.issuer))
	}
	claims, refused := partOf(parts[1])
	if refused != nil {
		return nil, refused
	}
	return g.principal(claims, now)
}

func partOf(part string) (map[string]any, *Refusal) {
	document, err := base64url.DecodeString(part)
	if err != nil {
		return nil, invalidToken("a part of the token is not base64url")
	}
	object, err := jsonObject(document, maxContainersOfToken)
	if err != nil {
		return nil, invalidToken("a part of the token is not a JSON object that every parser reads alike")
	}
	return object, nil
}

// keyID checks a token's header, and returns the id of the key that it names.
func keyID(header map[string]any) (string, *Refusal) {
	if header["alg"] != "ES256" {
		return "", invalidToken("alg is not ES256")
	}
	kind, _ := header["typ"].(string)
	if kind = strings.ToLower(kind); kind != "at+jwt" && kind != "application/at+jwt" {
		return "", invalidToken("typ is not at+jwt")
	}
	if _, isSet := header["crit"]; isSet {
		return "", invalidToken("crit names an extension that is not understood")
	}
	kid, _ := header["kid"].(string)
	if kid == "" {
		return "", invalidToken("kid is missing")
	}
	return kid, nil
}

// principal checks the claims, and returns the user.
func (g *Guard) principal(claims map[string]any, now time.Time) (*User, *Refusal) {
	audiences, isList := texts(claims["aud"])
	if single, isText := claims["aud"].(string); isText {
		audiences, isList = []string{single}, true
	}
	if claims["iss"] != g.issuer {
		return nil, invalidToken("iss is another issuer").because("iss is %s, this guard expects %s", shown(claims["iss"]), shown(g.issuer))
	}
	if !isList || !slices.Contains(audiences, g.audience) {
		return nil, invalidToken("aud does not name this audience").because("aud is %s, this guard expects %s", shown(claims["aud"]), shown(g.audience))
	}
	user := &User{Claims: claims}
	appID, hasAppID := claims["app_id"]
	openID, hasOpenID := claims["openid"]
	scope, hasScope := claims["scope"]
	clientID, _ := claims["client_id"].(string)
	if !hasAppID {
		appID = claims["client_id"] // the token of a login in a mini-program or mobile app
	}
	if strings.HasPrefix(clientID, "https://") && hasScope && !hasOpenID && !hasAppID {
		openID, appID = "", "" // the token of a program that describes itself by a document
	}
	var isText [4]bool
	user.ClientID, isText[0] = claims["client_id"].(string)
	user.OpenID, isText[1] = openID.(string)
	user.AppID, isText[2] = appID.(string)
	_, isText[3] = claims["jti"].(string)
	if isText != [4]bool{true, true, true, true} {
		return nil, invalidToken("client_id, openid, app_id or jti is missing or not a string")
	}
	if external, isSet := claims["external_id"]; isSet {
		text, isText := external.(string)
		if !isText {
			return nil, invalidToken("external_id is not a string")
		}
		user.ExternalID = &text
	}
	if roles, isSet := claims["roles"]; isSet {
		if user.Roles, isList = texts(roles); !isList {
			return nil, invalidToken("roles is not a list of strings")
		}
	}
	for name, id := range map[string]*string{"sub": &user.ID, "sid": &user.SessionID} {
		text, _ := claims[name].(string)
		if !uuidForm.MatchString(text) {
			return nil, invalidToken(name + " is missing or not a UUID")
		}
		*id = strings.ToLower(text)
	}
	if refused := checkTimes(claims, now); refused != nil {
		return nil, refused
	}
	if hasScope && !g.allowsScope() {
		return nil, refusal("insufficient_scope", "this service doesn't accept the tokens of websites and agents")
	}
	if hasScope || hasAppID { // a website's token, which names the openid's app, must also have a scope
		text, isText := scope.(string)
		if !isText {
			return nil, invalidToken("scope is missing or not a string")
		}
		user.Scope = slices.DeleteFunc(strings.Split(text, " "), func(name string) bool { return name == "" })
	}
	expires, _ := seconds(claims, "exp")
	user.ExpiresAt = time.UnixMilli(int64(min(expires, 1e14) * 1000))
	return user, nil
}

// checkTimes checks that the token is already valid, and has not expired.
func checkTimes(claims map[string]any, now time.Time) *Refusal {
	at := float64(now.UnixMilli()) / 1000
	for _, name := range []string{"iat", "nbf"} {
		if _, isSet := claims[name]; name == "nbf" && !isSet {
			continue
		}
		time, refused := seconds(claims, name)
		if refused != nil {
			return refused
		}
		if time-at > clockSkew {
			return invalidToken(name+" is in the future").because("%s is %.0f s in the future by this machine's clock", name, time-at)
		}
	}
	expires, refused := seconds(claims, "exp")
	if refused != nil {
		return refused
	}
	if at-expires >= clockSkew {
		return refusal("token_expired", "the token has expired").because("expired %.0f s ago by this machine's clock", at-expires)
	}
	return nil
}

func seconds(claims map[string]any, name string) (float64, *Refusal) {
	if number, isNumber := finite(claims[name]); isNumber {
		return number, nil
	}
	return 0, invalidToken(name + " is missing or not a finite number")
}

func texts(value any) ([]string, bool) {
	list, isList := value.([]any)
	found := make([]string, 0, len(list))
	for _, member := range list {
		text, isText := member.(string)
		if !isText {
			return nil, false
		}
		found = append(found, text)
	}
	return found, isList
}

// shown returns a value for the log, shortened, and escaped because a kid is read before the signature is checked.
func shown(value any) string {
	text := fmt.Sprintf("%+q", fmt.Sprint(value))
	return text[:min(len(text), maxShown)]
}
