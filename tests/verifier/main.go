// Command verifier checks a JSON Web Token the way a stranger to Chancery would: in another
// language, with another library, knowing only the JWKS, the issuer and the audience.
//
//	verifier -jwks FILE_OR_URL -issuer ISS -audience AUD [-typ at+jwt] [-leeway 0s] [-ca FILE] < token
//
// It prints {"header":…,"claims":…}, both exactly as the token holds them, and exits 0; or it
// prints one sentence on standard error and exits 1. It is stricter than many verifiers, so that a
// token which passes here passes elsewhere: the key must be named by `kid`, the JWK must name its
// `alg`, and `exp` must be there.
package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// algorithms are the signature algorithms that Chancery offers; anything else, `none` and the
// symmetric ones first of all, is refused before a key is looked up.
var algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

type options struct {
	jwks, issuer, audience, typ, ca string
	leeway                          time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.jwks, "jwks", "", "the JWKS: a file, or an https URL")
	flag.StringVar(&o.issuer, "issuer", "", "what `iss` must be")
	flag.StringVar(&o.audience, "audience", "", "what `aud` must hold")
	flag.StringVar(&o.typ, "typ", "", "what the header's `typ` must be (any, when not given)")
	flag.StringVar(&o.ca, "ca", "", "PEM file of the authorities to trust for an https URL")
	flag.DurationVar(&o.leeway, "leeway", 0, "how far the clocks may differ")
	flag.Parse()

	answer, err := verify(o, os.Stdin)
	if err != nil {
		fmt.Fprintf(os.Stderr, "verifier: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(string(answer))
}

func verify(o options, in io.Reader) ([]byte, error) {
	if o.jwks == "" || o.issuer == "" || o.audience == "" {
		return nil, errors.New("-jwks, -issuer and -audience must all be given")
	}
	raw, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	keys, err := loadKeys(o.jwks, o.ca)
	if err != nil {
		return nil, err
	}

	parser := jwt.NewParser(
		jwt.WithValidMethods(algorithms),
		jwt.WithIssuer(o.issuer),
		jwt.WithAudience(o.audience),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(o.leeway),
		jwt.WithStrictDecoding(),
	)
	_, err = parser.Parse(token, func(t *jwt.Token) (any, error) {
		if err := checkTyp(o.typ, t.Header["typ"]); err != nil {
			return nil, err
		}
		if _, there := t.Header["crit"]; there {
			return nil, errors.New("the header has crit, and no extension is known here")
		}
		kid, _ := t.Header["kid"].(string)
		if kid == "" {
			return nil, errors.New("the header names no kid")
		}
		key, ok := keys[kid]
		if !ok {
			return nil, fmt.Errorf("the JWKS has no key with the kid %q", kid)
		}
		if key.alg != t.Method.Alg() {
			return nil, fmt.Errorf("the token says alg %s, but its key is for %s", t.Method.Alg(), key.alg)
		}
		return key.public, nil
	})
	if err != nil {
		return nil, err
	}

	parts := strings.Split(token, ".")
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return nil, err
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]json.RawMessage{"header": header, "claims": claims})
}

// checkTyp compares media types as RFC 7515 §4.1.9 has it: without regard to case, and with or
// without the "application/" in front.
func checkTyp(want string, got any) error {
	if want == "" {
		return nil
	}
	short := func(s string) string {
		return strings.TrimPrefix(strings.ToLower(s), "application/")
	}
	if typ, ok := got.(string); !ok || short(typ) != short(want) {
		return fmt.Errorf("the header's typ is %v, not %s", got, want)
	}
	return nil
}
