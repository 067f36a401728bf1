package fromfield

import (
	"net/mail"
	"testing"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
)

// FuzzRead holds what must be true of every reading: it is within the limits, its
// addresses are canonical, and what net/mail reads is among them.
func FuzzRead(f *testing.F) {
	for _, s := range hostileValues()[:400] {
		f.Add(s, "")
	}
	for _, s := range []string{"alice@a.test", "A <alice@a.test>, b@b.test", `"a b"@a.test`, "Us: a@a.test;", "=?utf-8?q?=C3=A4?= <a@a.test>",
		"a@a.test (c (d))", "<@r.test:a@a.test>", "a@[1.2.3.4]", "\x00", "a@\xff.test", `"a\"b"@a.test`, "a@a.test\r\n b@b.test",
		"\x1b$B;3ED\x1b(B <a@a.test>", "((((", `""""`, "=?a?q?", "@@@@", "\u202ea@b.c\u202c", "a!b!c%d%e", "=?utf-7?q?+AEA-?="} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		var fields Fields
		fields.Add(a)
		fields.Add(b)
		r := fields.Read()
		if r.Excess {
			if len(r.Mailboxes)+len(r.Shown) > 0 {
				t.Errorf("excess, and still %s", outline(r))
			}
			return
		}
		if len(r.Mailboxes) > MaxMailboxes || len(r.Shown) > MaxShown {
			t.Errorf("%d mailboxes, %d shown", len(r.Mailboxes), len(r.Shown))
		}
		canonical := func(got wire.Address) {
			if got.IsZero() || got.IsDomain() {
				return
			}
			if again, err := wire.DecodeAddress(got.String()); err != nil || again != got {
				t.Errorf("%q is read again as %q, %v", got, again, err)
			}
		}
		for _, m := range r.Mailboxes {
			canonical(m.Address)
		}
		for _, s := range r.Shown {
			canonical(s)
		}
		list, err := (&mail.AddressParser{}).ParseList(withoutBreaks.Replace(a))
		if err != nil {
			return
		}
		for _, each := range list {
			_, domain, _ := esmtp.Cut(each.Address)
			if want, err := wire.ParseDomain(domain); err == nil && !mentions(r, want) {
				t.Errorf("%q: net/mail reads %q, we %s", a, each.Address, outline(r))
			}
		}
	})
}
