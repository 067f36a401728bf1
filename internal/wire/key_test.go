package wire

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// secret is a key that no other text contains.
const secret = "CVQ2T7HDRWNQ5KYG4M3XIBZL5E"

func mustKey(t *testing.T, s string) Key {
	t.Helper()
	k, err := ParseKey(s)
	if err != nil {
		t.Fatalf("ParseKey(%q): %v", s, err)
	}
	return k
}

func TestParseKey(t *testing.T) {
	for _, c := range []struct {
		in string
		ok bool
	}{
		{"k", true},
		{"!~", true},
		{strings.Repeat("k", MaxKey), true},
		{strings.Repeat("k", MaxKey+1), false},
		{"", false},
		{" k", false},
		{"k\n", false},
		{"k\x7f", false},
		{"ü", false},
	} {
		k, err := ParseKey(c.in)
		switch {
		case c.ok && (err != nil || k.Reveal() != c.in || k.IsZero() || k.Bad()):
			t.Errorf("ParseKey(%.20q) = %q, %v", c.in, k.Reveal(), err)
		case !c.ok && (!errors.Is(err, ErrBadKey) || !k.IsZero()):
			t.Errorf("ParseKey(%.20q) = %v, %v, want no key and ErrBadKey", c.in, k, err)
		}
	}
}

func TestKeyStates(t *testing.T) {
	for _, c := range []struct {
		name      string
		key       Key
		text      string
		zero, bad bool
		reveal    string
	}{
		{"zero", Key{}, "[no AuthKey]", true, false, ""},
		{"none joined", JoinKeys(), "[no AuthKey]", true, false, ""},
		{"empty joined", JoinKeys("", " "), "[no AuthKey]", true, false, ""},
		{"bad", JoinKeys("k", "l"), "[bad AuthKey]", false, true, ""},
		{"good", JoinKeys("k"), "[AuthKey]", false, false, "k"},
	} {
		if k := c.key; k.String() != c.text || k.IsZero() != c.zero || k.Bad() != c.bad || k.Reveal() != c.reveal {
			t.Errorf("%s: %v zero %v bad %v reveals %q", c.name, k, k.IsZero(), k.Bad(), k.Reveal())
		}
	}
}

func TestKeyEqual(t *testing.T) {
	keys := []Key{{}, JoinKeys("k", "l"), mustKey(t, "k"), mustKey(t, "K"), mustKey(t, "kk")}
	for i, a := range keys {
		for j, b := range keys {
			if a.Equal(b) != (i == j) {
				t.Errorf("key %d equal to key %d: %v", i, j, a.Equal(b))
			}
		}
	}
	if !mustKey(t, "k").Equal(JoinKeys(" k\r\n ")) {
		t.Error("the same key, come by two ways, is not equal")
	}
}

// hidden holds keys where a careless printer would find them, without a method of
// Key being asked.
type hidden struct {
	key    Key
	keys   []Key
	byName map[string]Key
	ptr    *Key
	req    Request
}

// No way of printing a key, or what holds one, shows it.
func TestKeyNeverPrints(t *testing.T) {
	k := mustKey(t, secret)
	req := Request{Seq: 1, Address: "alice@example.com", Key: k}
	values := map[string]any{
		"key":            k,
		"pointer":        &k,
		"slice":          []Key{k},
		"map":            map[string]Key{"k": k},
		"request":        req,
		"request ptr":    &req,
		"hidden":         hidden{k, []Key{k}, map[string]Key{"k": k}, &k, req},
		"hidden ptr":     &hidden{k, []Key{k}, map[string]Key{"k": k}, &k, req},
		"interface":      struct{ v any }{k},
		"exported field": struct{ Key Key }{k},
	}
	for name, v := range values {
		for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "99", ".3", "+#", "# "} {
				format := "%" + flags + string(verb)
				checkHidden(t, name+" "+format, fmt.Sprintf(format, v))
			}
		}
		checkHidden(t, name+" Sprint", fmt.Sprint(v)+fmt.Sprintln(v))
		checkHidden(t, name+" error", fmt.Errorf("verify: %v", v).Error())
		for _, marshal := range []func(any) ([]byte, error){json.Marshal, xml.Marshal} {
			if out, err := marshal(v); err == nil {
				checkHidden(t, name+" marshalled", string(out))
			} else {
				checkHidden(t, name+" marshalling error", err.Error())
			}
		}
		var text, js bytes.Buffer
		for _, handler := range []slog.Handler{slog.NewTextHandler(&text, nil), slog.NewJSONHandler(&js, nil)} {
			slog.New(handler).With("with", v).Info("message", "value", v, slog.Group("group", "value", v))
		}
		if text.Len() == 0 || js.Len() == 0 {
			t.Errorf("%s: nothing was logged", name)
		}
		checkHidden(t, name+" slog", text.String()+js.String())
	}
}

// checkHidden looks for the secret in all the forms which the verbs of fmt know.
func checkHidden(t *testing.T, how, output string) {
	t.Helper()
	var decimal, octal []string
	for _, c := range []byte(secret[:4]) {
		decimal, octal = append(decimal, fmt.Sprint(c)), append(octal, fmt.Sprintf("%o", c))
	}
	folded := strings.ToLower(output)
	for _, form := range []string{
		secret[:4], fmt.Sprintf("%x", secret[:4]), fmt.Sprintf("% x", secret[:4]),
		strings.Join(decimal, " "), strings.Join(octal, " "),
	} {
		if strings.Contains(folded, strings.ToLower(form)) {
			t.Errorf("%s shows the key: %s", how, output)
		}
	}
}

func TestKeyPrintsItsKind(t *testing.T) {
	for _, c := range []struct{ format, want string }{
		{"%v", "[AuthKey]"}, {"%+v", "[AuthKey]"}, {"%#v", "[AuthKey]"}, {"%s", "[AuthKey]"}, {"%q", `"[AuthKey]"`}, {"%d", "[AuthKey]"},
	} {
		if got := fmt.Sprintf(c.format, any(mustKey(t, secret))); got != c.want {
			t.Errorf("%s: %s, want %s", c.format, got, c.want)
		}
	}
	if got := slog.AnyValue(mustKey(t, secret)).Resolve(); got.Kind() != slog.KindString || got.String() != "[AuthKey]" {
		t.Errorf("slog: %v of kind %v", got, got.Kind())
	}
	out, err := json.Marshal(struct{ Key Key }{mustKey(t, secret)})
	if want := `{"Key":"[AuthKey]"}`; err != nil || string(out) != want {
		t.Errorf("JSON: %s, %v, want %s", out, err, want)
	}
}

// checkJoined tests what holds for every result of JoinKeys.
func checkJoined(t *testing.T, k Key, values []string) {
	t.Helper()
	states := 0
	for _, is := range []bool{k.IsZero(), k.Bad(), k.Reveal() != ""} {
		if is {
			states++
		}
	}
	if states != 1 {
		t.Errorf("JoinKeys(%q): zero %v, bad %v, reveals %q", values, k.IsZero(), k.Bad(), k.Reveal())
	}
	if twice := JoinKeys(slices.Concat([]string{""}, values, values)...); !k.Equal(twice) {
		t.Errorf("JoinKeys(%q) = %v, given twice %v", values, k, twice)
	}
	backwards := slices.Clone(values)
	slices.Reverse(backwards)
	if other := JoinKeys(backwards...); !k.Equal(other) {
		t.Errorf("JoinKeys(%q) = %v, backwards %v", values, k, other)
	}
	if k.Reveal() == "" {
		return
	}
	if parsed, err := ParseKey(k.Reveal()); err != nil || !parsed.Equal(k) {
		t.Errorf("JoinKeys(%q) revealed %q, which ParseKey refuses: %v", values, k.Reveal(), err)
	}
}
