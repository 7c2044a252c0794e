package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"time"
)

// key is a public key with the one algorithm that it may be used with.
type key struct {
	alg    string
	public any
}

// loadKeys reads a JWKS and gives its keys by kid.
//
// It refuses a set that a careful publisher would never serve: no keys, a key without kid or alg,
// two keys of one kid, or a member that belongs to a private or symmetric key.
func loadKeys(from, ca string) (map[string]key, error) {
	document, err := read(from, ca)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, fmt.Errorf("the JWKS is not JSON: %w", err)
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("the JWKS holds no keys")
	}
	keys := map[string]key{}
	for _, jwk := range set.Keys {
		kid, parsed, err := parseKey(jwk)
		if err != nil {
			return nil, fmt.Errorf("the JWKS's key %q: %w", kid, err)
		}
		if _, twice := keys[kid]; twice {
			return nil, fmt.Errorf("the JWKS holds two keys with the kid %q", kid)
		}
		keys[kid] = parsed
	}
	return keys, nil
}

func parseKey(jwk map[string]any) (kid string, parsed key, err error) {
	text := func(member string) string { s, _ := jwk[member].(string); return s }
	kid = text("kid")
	if kid == "" {
		return kid, key{}, errors.New("it has no kid")
	}
	for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		if _, there := jwk[member]; there {
			return kid, key{}, fmt.Errorf("it publishes %q, which only a secret key has", member)
		}
	}
	if use := text("use"); use != "" && use != "sig" {
		return kid, key{}, fmt.Errorf("its use is %q, not sig", use)
	}

	alg := text("alg")
	var public any
	switch {
	case strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS"):
		public, err = rsaKey(text("kty"), text("n"), text("e"))
	case strings.HasPrefix(alg, "ES"):
		public, err = ecKey(alg, text("kty"), text("crv"), text("x"), text("y"))
	case alg == "EdDSA":
		public, err = edKey(text("kty"), text("crv"), text("x"))
	default:
		err = fmt.Errorf("its alg is %q, which is none of ours", alg)
	}
	return kid, key{alg: alg, public: public}, err
}

func rsaKey(kty, n, e string) (any, error) {
	if kty != "RSA" {
		return nil, fmt.Errorf("its kty is %q, not RSA", kty)
	}
	modulus, err := number("n", n)
	if err != nil {
		return nil, err
	}
	exponent, err := number("e", e)
	if err != nil {
		return nil, err
	}
	if modulus.BitLen() < 2048 || !exponent.IsInt64() || exponent.Int64() > 1<<31-1 {
		return nil, fmt.Errorf("it is no RSA key of 2048 bits or more with a small exponent")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

func ecKey(alg, kty, crv, x, y string) (any, error) {
	curves := map[string]struct {
		name  string
		curve elliptic.Curve
	}{
		"ES256": {"P-256", elliptic.P256()},
		"ES384": {"P-384", elliptic.P384()},
		"ES512": {"P-521", elliptic.P521()},
	}
	want, known := curves[alg]
	if !known || kty != "EC" || crv != want.name {
		return nil, fmt.Errorf("alg %s does not go with kty %q, crv %q", alg, kty, crv)
	}
	// RFC 7518 §6.2.1.2: coordinates have the full length of the field, leading zeros and all.
	size := (want.curve.Params().BitSize + 7) / 8
	point := []byte{4}
	for _, coordinate := range []struct{ name, text string }{{"x", x}, {"y", y}} {
		raw, err := decode(coordinate.name, coordinate.text)
		if err != nil {
			return nil, err
		}
		if len(raw) != size {
			return nil, fmt.Errorf("its %s has %d bytes, not %d", coordinate.name, len(raw), size)
		}
		point = append(point, raw...)
	}
	return ecdsa.ParseUncompressedPublicKey(want.curve, point)
}

func edKey(kty, crv, x string) (any, error) {
	if kty != "OKP" || crv != "Ed25519" {
		return nil, fmt.Errorf("alg EdDSA does not go with kty %q, crv %q", kty, crv)
	}
	raw, err := decode("x", x)
	if err != nil {
		return nil, err
	}
	if len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("its x has %d bytes, not %d", len(raw), ed25519.PublicKeySize)
	}
	return ed25519.PublicKey(raw), nil
}

// number decodes an unsigned integer as RFC 7518 §2 has it: in as few bytes as possible.
func number(name, text string) (*big.Int, error) {
	raw, err := decode(name, text)
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 || raw[0] == 0 {
		return nil, fmt.Errorf("its %s is empty or starts with a zero byte", name)
	}
	return new(big.Int).SetBytes(raw), nil
}

func decode(name, text string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("its %s is not base64url without padding", name)
	}
	return raw, nil
}

// read fetches a file or an https URL. Plain http is refused except from this machine: a JWKS
// that anyone on the way could swap proves nothing.
func read(from, ca string) ([]byte, error) {
	loopback := strings.HasPrefix(from, "http://127.0.0.1:") || strings.HasPrefix(from, "http://localhost:")
	switch {
	case strings.HasPrefix(from, "https://") || loopback:
	case strings.HasPrefix(from, "http://"):
		return nil, errors.New("the JWKS must come over https, or from loopback")
	default:
		document, err := os.ReadFile(from)
		if err != nil {
			return nil, fmt.Errorf("reading the JWKS: %w", err)
		}
		return document, nil
	}

	transport := &http.Transport{TLSClientConfig: &tls.Config{}}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("reading -ca: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("-ca: %s holds no certificate", ca)
		}
	}
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	answer, err := client.Get(from)
	if err != nil {
		return nil, fmt.Errorf("fetching the JWKS: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetching the JWKS: %s answered %s", from, answer.Status)
	}
	return io.ReadAll(io.LimitReader(answer.Body, 1<<20))
}
