package wire

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/esmtp"
)

func mustAddress(t *testing.T, mailbox string) Address {
	t.Helper()
	a, err := ParseAddress(mailbox)
	if err != nil {
		t.Fatalf("ParseAddress(%q): %v", mailbox, err)
	}
	return a
}

func TestAddressParts(t *testing.T) {
	for _, c := range []struct{ mailbox, local, domain string }{
		{"alice@example.com", "alice", "example.com"},
		{"Alice@EXAMPLE.com.", "Alice", "example.com"},
		{`"Joe Q"@example.com`, "Joe Q", "example.com"},
		{`"a\"b\\c"@example.com`, `a"b\c`, "example.com"},
		{`"a@b"@example.com`, "a@b", "example.com"},
		{`""@example.com`, "", "example.com"},
		{"100%@example.com", "100%", "example.com"},
		{"%41@example.com", "%41", "example.com"},
		{"ju\u0308rgen@bücher.example", "jürgen", "xn--bcher-kva.example"},
		{"\"a\r\nb\"@example.com", "a\r\nb", "example.com"},
		{"a\xff@example.com", "a\xff", "example.com"},
	} {
		a := mustAddress(t, c.mailbox)
		if a.Local() != c.local || a.Domain() != c.domain || a.IsZero() {
			t.Errorf("ParseAddress(%q): local %q domain %q zero %v, want %q %q false",
				c.mailbox, a.Local(), a.Domain(), a.IsZero(), c.local, c.domain)
		}
	}
}

func TestZeroAddress(t *testing.T) {
	var a Address
	if !a.IsZero() || a.String() != "" || a.Local() != "" || a.Domain() != "" {
		t.Errorf("zero Address: %v %q %q %q", a.IsZero(), a.String(), a.Local(), a.Domain())
	}
}

// Two spellings of one mailbox are one Address, two mailboxes are two.
func TestAddressComparable(t *testing.T) {
	a := mustAddress(t, `"a.b"@Example.com.`)
	if b := mustAddress(t, "a.b@example.COM"); a != b {
		t.Errorf("%v != %v", a, b)
	}
	for _, other := range []string{"A.b@example.com", "a.b@mail.example.com", "a.b+c@example.com", `"a. b"@example.com`} {
		if b := mustAddress(t, other); a == b {
			t.Errorf("%v == %v", a, b)
		}
	}
}

func TestDecodeAddressErrors(t *testing.T) {
	for _, c := range []struct {
		word string
		want error
	}{
		{"", ErrNullSender},
		{"a@example.com%", ErrEncoding},
		{"a@example.com%2", ErrEncoding},
		{"%zz@example.com", ErrEncoding},
		{"%c3%bc@example.com", ErrEncoding},
		{"a b@example.com", ErrEncoding},
		{"a@example.com\n", ErrEncoding},
		{"alice", ErrNoDomain},
		{"a@[192.0.2.1]", ErrDomainLiteral},
		{"a@b_%20.example", ErrDomain},
		{strings.Repeat("a", MaxAddress+1), ErrAddressSize},
		{strings.Repeat(".", 900) + strings.Repeat("%22", 20) + "@example.com", nil},
		{strings.Repeat("a.", 400) + strings.Repeat("%5C%22", 35) + "@" + strings.Repeat("x", 10), nil},
	} {
		a, err := DecodeAddress(c.word)
		if !errors.Is(err, c.want) {
			t.Errorf("DecodeAddress(%.60q): %v, want %v", c.word, err, c.want)
		}
		if err == nil {
			checkAddress(t, a)
		} else if !a.IsZero() {
			t.Errorf("DecodeAddress(%.60q): address beside an error: %v", c.word, a)
		}
	}
}

// A word within MaxAddress can stand for an address that is beyond it.
func TestDecodeAddressGrows(t *testing.T) {
	word := "\"" + strings.Repeat(" ", 400) + "\"@example.com"
	if _, err := DecodeAddress(word); !errors.Is(err, ErrEncoding) {
		t.Errorf("raw spaces: %v, want ErrEncoding", err)
	}
	word = strings.Repeat("(", MaxAddress-len("@example.com")) + "@example.com"
	if _, err := DecodeAddress(word); !errors.Is(err, ErrAddressSize) {
		t.Errorf("quotes added to %d octets: %v, want ErrAddressSize", len(word), err)
	}
}

func TestParseDomain(t *testing.T) {
	for _, c := range []struct {
		in, want string
		err      error
	}{
		{"Example.COM", "example.com", nil},
		{"example.com.", "example.com", nil},
		{"example.com\uff0e", "example.com", nil},
		{"example.com\uff61", "example.com", nil},
		{"ex\uff0eample\u3002com", "ex.ample.com", nil},
		{"K\u212a.example", "kk.example", nil}, // KELVIN SIGN is a "k" to UTS-46
		{"", "", ErrNoDomain},
		{".", "", ErrNoDomain},
		{"\u3002", "", ErrNoDomain},
		{"..", "", ErrDomain},
		{"example.com\u3002\u3002", "", ErrDomain},
		{"b\u00fccher.example\u3002.", "", ErrDomain},
		{"[::1]", "", ErrDomainLiteral},
		{strings.Repeat("ü.", maxMailbox), "", ErrDomain},
		{strings.Repeat("a.", 200), "", ErrDomain},
	} {
		got, err := ParseDomain(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("ParseDomain(%.40q) = %q, %v, want %q, %v", c.in, got, err, c.want, c.err)
		}
	}
}

// What is wrong with a domain is quoted in the error: it may be logged.
func TestDomainErrorIsQuoted(t *testing.T) {
	for _, domain := range []string{"a\nb.example", "ü\n.example", "xn--\n.example", "ü\x1b[2J"} {
		_, err := ParseDomain(domain)
		if err == nil || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("ParseDomain(%q): error %q", domain, err)
		}
	}
}

// checkAddress tests what holds for every Address that is not zero.
func checkAddress(t *testing.T, a Address) {
	t.Helper()
	s := a.String()
	if len(s) > MaxAddress || !visible(s) {
		t.Errorf("canonical form of %d octets breaks a line: %q", len(s), s)
	}
	again, err := DecodeAddress(s)
	if err != nil || again != a {
		t.Errorf("canonical form is not stable: %q became %q, %v", s, again, err)
	}
	if !strings.Contains(s, "%") { // then the encoding is the mailbox itself
		if again, err = ParseAddress(s); err != nil || again != a {
			t.Errorf("canonical form is not stable: mailbox %q became %q, %v", s, again, err)
		}
	}
	if d, err := ParseDomain(a.Domain()); err != nil || d != a.Domain() {
		t.Errorf("domain is not stable: %q became %q, %v", a.Domain(), d, err)
	}
	if d := a.Domain(); d == "" || len(d) > esmtp.MaxDomain || !strings.HasSuffix(s, "@"+d) {
		t.Errorf("domain %q of %q", d, s)
	}
	// The content, quoted in any legal way, is the same address.
	spelled := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Local()) + `"@` + a.Domain()
	if again, err = ParseAddress(spelled); err != nil || again != a {
		t.Errorf("content of %q, quoted as %q, became %q, %v", s, spelled, again, err)
	}
}

// addressPieces are what random mailboxes are made of.
var addressPieces = []string{
	"a", "B", "é", "e\u0301", "\u0301", "ü", "ß", "\xff", "\xc3", "%", "%41", "%0A", "@", "@", ".", "..", `"`, `"`, `\`, `\"`,
	" ", "\t", "\r\n", "\x00", ":", ",", "[", "]", "<", "\u0338", "(", "+", "=", "example.com", "xn--bcher-kva", "xn--", "XN--4db",
	"א", "1", "-", "_", "\u3002", "\uff0e", "\u00ad", "\u200d", "用户", strings.Repeat("x", 61), strings.Repeat("\u0301", 31),
}

func TestAddressProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 425))
	parsed := 0
	for range 50_000 {
		var b strings.Builder
		for range random.IntN(8) + 1 {
			b.WriteString(addressPieces[random.IntN(len(addressPieces))])
		}
		if random.IntN(2) == 0 {
			b.WriteString("@example.com")
		}
		a, err := ParseAddress(b.String())
		if err != nil {
			if !a.IsZero() {
				t.Errorf("ParseAddress(%q): address beside an error: %v", b.String(), a)
			}
			continue
		}
		parsed++
		checkAddress(t, a)
		if t.Failed() {
			t.Fatalf("mailbox: %q", b.String())
		}
	}
	if parsed < 10_000 {
		t.Errorf("only %d of the mailboxes are addresses: the pieces test nothing", parsed)
	}
}

func TestDomainAddress(t *testing.T) {
	for _, tt := range []struct{ mailbox, want string }{
		{"ceo+" + strings.Repeat("a", 5000) + "@Bank.TEST.", "@bank.test"},
		{"@bank.test", "@bank.test"},
		{`"a@b@bank.test`, "@bank.test"},
		{"@r.test:x@bücher.test", "@xn--bcher-kva.test"},
		{"x@[192.0.2.1]", ""},
		{"x@bank..test", ""},
		{"x@", ""},
		{"x", ""},
	} {
		a, err := DomainAddress(tt.mailbox)
		if a.String() != tt.want || (err != nil) != (tt.want == "") || a.IsDomain() != (tt.want != "") {
			t.Errorf("DomainAddress(%.20q) = %q, %v; want %q", tt.mailbox, a, err, tt.want)
		}
		if err == nil && (a.Local() != "" || "@"+a.Domain() != tt.want) {
			t.Errorf("%q: local part %q, domain %q", a, a.Local(), a.Domain())
		}
	}
	if mustAddress(t, "alice@bank.test").IsDomain() {
		t.Error("alice@bank.test is a domain alone")
	}
}
