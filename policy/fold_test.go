package policy

import (
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/wire"
)

func TestFold(t *testing.T) {
	tests := []struct{ mailbox, want string }{
		{"", ""},
		{"bob@example.com", "bob@example.com"},
		{"Bob.Smith@EXAMPLE.com", "bob.smith@example.com"},
		{"bob+Tag@example.com", "bob+tag@example.com"},
		{"bob@example.com.", "bob@example.com"},
		{`"bob"@example.com`, "bob@example.com"},
		{`b\ob@example.com`, "bob@example.com"},
		{"@relay.example,@b.example:bob@example.com", "bob@example.com"},
		{`"a b"@example.com`, "a b@example.com"},
		{`"a@b"@example.com`, "a@b@example.com"},
		{"100%@example.com", "100%@example.com"},
		{"ÉMILE@bücher.example", "émile@xn--bcher-kva.example"},
		{"e\u0301mile@BÜCHER.example", "émile@xn--bcher-kva.example"},
		{"Postmaster", "postmaster"},
		{"Bob@[192.0.2.1]", "bob@[192.0.2.1]"},
	}
	for _, tt := range tests {
		if got := Fold(tt.mailbox); got != tt.want {
			t.Errorf("Fold(%q) = %q, want %q", tt.mailbox, got, tt.want)
		}
	}
}

func TestFoldAllocatesNothingForMostMailboxes(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Fold("bob.smith+tag@mail.example.com") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFold checks that whatever spells a mailbox which can take part folds to
// the mailbox itself.
func FuzzFold(f *testing.F) {
	for _, s := range []string{"bob@example.com", `"Bob"@Example.COM.`, "@a.example:b@c.example", `"a\"b"@x.example`, "é@ü.example", "a@b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		folded := Fold(s)
		a, err := wire.ParseAddress(s)
		if err != nil {
			if folded != strings.ToLower(s) && !isFolded(s) {
				t.Errorf("Fold(%q) = %q of no address", s, folded)
			}
			return
		}
		if want := strings.ToLower(a.Local()) + "@" + a.Domain(); folded != want {
			t.Errorf("Fold(%q) = %q, want %q", s, folded, want)
		}
		if again := Fold(a.String()); !strings.Contains(a.String(), "%") && !strings.Contains(a.String(), `"`) && again != folded {
			t.Errorf("Fold of the canonical form %q = %q, want %q", a, again, folded)
		}
	})
}
