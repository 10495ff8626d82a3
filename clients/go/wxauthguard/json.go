package wxauthguard

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"unicode/utf8"
)

const (
	maxContainersOfToken = 64 // objects and lists in one part of a token; tokens of wxauth contain two
	maxContainersOfKeys  = 4096
)

// Matches the escapes that stand for a character. encoding/json replaces a lone surrogate without an error.
var goodEscapes = regexp.MustCompile(`\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?:[0-9a-cA-CefEF][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{2})`)

var errNotJSON = errors.New("not a JSON object that every parser reads alike")

// jsonObject returns the JSON object in a document. It refuses what two parsers could read differently: repeated names,
// a name that differs only in case stays another name, lone surrogates, bytes that are not UTF-8, and numbers beyond any
// float. encoding/json alone refuses none of these.
func jsonObject(document []byte, maxContainers int) (map[string]any, error) {
	if !utf8.Valid(document) {
		return nil, errNotJSON
	}
	if bytes.IndexByte(document, '\\') >= 0 && bytes.IndexByte(goodEscapes.ReplaceAll(document, nil), '\\') >= 0 {
		return nil, errNotJSON
	}
	reader := strictReader{json.NewDecoder(bytes.NewReader(document)), maxContainers}
	reader.UseNumber()
	value, err := reader.value()
	if err != nil {
		return nil, err
	}
	object, isObject := value.(map[string]any)
	if _, err := reader.Token(); !isObject || err == nil { // nothing may follow
		return nil, errNotJSON
	}
	if reader.InputOffset() != int64(len(document)) && len(bytes.TrimSpace(document[reader.InputOffset():])) > 0 {
		return nil, errNotJSON
	}
	return object, nil
}

type strictReader struct {
	*json.Decoder
	containersLeft int
}

func (r *strictReader) value() (any, error) {
	token, err := r.Token()
	if err != nil {
		return nil, err
	}
	if number, isNumber := token.(json.Number); isNumber {
		if _, isFinite := finite(number); !isFinite {
			return nil, errNotJSON
		}
		return number, nil
	}
	delimiter, isDelimiter := token.(json.Delim)
	if !isDelimiter {
		return token, nil
	}
	if r.containersLeft--; r.containersLeft < 0 {
		return nil, errNotJSON
	}
	if delimiter == '[' {
		return r.list()
	}
	return r.object()
}

func (r *strictReader) list() (any, error) {
	list := []any{}
	for r.More() {
		member, err := r.value()
		if err != nil {
			return nil, err
		}
		list = append(list, member)
	}
	_, err := r.Token()
	return list, err
}

func (r *strictReader) object() (any, error) {
	object := map[string]any{}
	for r.More() {
		token, err := r.Token()
		if err != nil {
			return nil, err
		}
		name, isText := token.(string)
		if _, isKnown := object[name]; !isText || isKnown {
			return nil, errNotJSON
		}
		if object[name], err = r.value(); err != nil {
			return nil, err
		}
	}
	_, err := r.Token()
	return object, err
}

func finite(value any) (float64, bool) {
	number, isNumber := value.(json.Number)
	if !isNumber {
		return 0, false
	}
	found, err := strconv.ParseFloat(string(number), 64)
	return found, err == nil
}
