package wire

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
)

// MaxKey is the greatest length of an AuthKey in octets.
const MaxKey = 512

// ErrBadKey says that no AS can have issued this AuthKey: it is empty, longer
// than MaxKey, has characters outside 0x21-0x7E, or a message carries two
// different ones. The key is never part of the error.
var ErrBadKey = errors.New("not an AuthKey that any server could have issued")

// A Key is an AuthKey as a message or a VERIFY line has it. An AuthKey is a bearer token:
// anybody who sees it can use it. Therefore a Key prints as a fixed text everywhere, and only
// Reveal returns its octets. It cannot be compared with ==; Equal does that.
//
// The zero Key means that there is none.
type Key struct {
	_ [0]func()
	// The octets are behind a pointer, because package fmt prints fields which are
	// not exported without calling their methods: of a struct that holds a Key in
	// such a field it prints a memory address.
	value *string
	bad   bool
}

// ParseKey checks s against the protocol's authkey rule. The error is ErrBadKey.
func ParseKey(s string) (Key, error) {
	if !validKey(s) {
		return Key{}, ErrBadKey
	}
	return Key{value: &s}, nil
}

func validKey(s string) bool { return len(s) <= MaxKey && visible(s) }

// JoinKeys makes one Key of the values of all X-Auth-Key fields of a message:
// each unfolded and trimmed, empty ones left out, the same key repeated counted
// once. The zero Key means no key; a Key that is Bad stands for fields which no
// AS could have issued (docs/protocol.md section 5).
func JoinKeys(values ...string) Key {
	var joined Key
	for _, v := range values {
		joined = joined.Join(v)
	}
	return joined
}

// Join adds the value of one more X-Auth-Key field, as JoinKeys does, so that a
// reader of headers never holds more than one Key of a message.
func (k Key) Join(value string) Key {
	value = strings.Trim(unfold(value), " \t")
	switch {
	case k.bad || value == "":
		return k
	case !validKey(value), k.value != nil && *k.value != value:
		return Key{bad: true}
	case k.value != nil:
		return k
	}
	value = strings.Clone(value) // not the whole field's memory
	return Key{value: &value}
}

// unfold takes the line breaks before blanks out of a field value (RFC 5322
// section 2.2.3). An MTA hands over LF or CRLF. Any other line break stays, and
// makes the value no AuthKey.
func unfold(v string) string {
	if strings.IndexByte(v, '\n') < 0 {
		return v
	}
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		lf := i
		if v[lf] == '\r' && lf+1 < len(v) {
			lf++
		}
		if v[lf] == '\n' && lf+1 < len(v) && (v[lf+1] == ' ' || v[lf+1] == '\t') {
			i = lf
			continue
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.value == nil && !k.bad }

// Bad reports whether there is a key that no AS could have issued.
func (k Key) Bad() bool { return k.bad }

// Equal reports whether both are the same key, both none or both bad. The time that it
// takes depends only on the lengths of the keys.
func (k Key) Equal(other Key) bool {
	return k.bad == other.bad &&
		subtle.ConstantTimeCompare([]byte(k.Reveal()), []byte(other.Reveal())) == 1
}

// Reveal returns the octets of the key, none for a Bad or a zero one. A key can leak only
// through its callers.
func (k Key) Reveal() string {
	if k.value == nil {
		return ""
	}
	return *k.value
}

// String never shows the key.
func (k Key) String() string {
	switch {
	case k.bad:
		return "[bad AuthKey]"
	case k.value == nil:
		return "[no AuthKey]"
	}
	return "[AuthKey]"
}

// Format never shows the key, whatever the verb: fmt asks String for a few of
// them only and prints the fields for all others.
func (k Key) Format(f fmt.State, verb rune) {
	text := k.String()
	if verb == 'q' {
		text = strconv.Quote(text)
	}
	io.WriteString(f, text) // fmt's buffer takes everything
}

// LogValue never shows the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText never shows the key, so that no JSON of ours holds one.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
