package esmtp

import (
	"strings"
	"testing"
)

func TestSafeAddress(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "",
		"Alice.b+c-d_e/9@a.test":               "Alice.b+c-d_e/9@a.test",
		"δοκιμή@bücher.test":                   "δοκιμή@bücher.test",
		"alice@[IPv6:2001:db8::1]":             "alice@[IPv6:2001:db8::1]",
		"x-result=pass@evil.test":              "x-result%3Dpass@evil.test",
		`"x result=pass action=accept"@e.test`: "%22x%20result%3Dpass%20action%3Daccept%22@e.test",
		`"a@b"@c.test`:                         "%22a%40b%22@c.test",
		"a\r\nb\x00\x7f@c.test":                "a%0D%0Ab%00%7F@c.test",
		"100%@a.test":                          "100%25@a.test",
		"no at=all":                            "no%20at%3Dall",
		"[x]:y":                                "%5Bx%5D%3Ay",
		"[x]:y@a.test":                         "%5Bx%5D%3Ay@a.test",
		"a@b.test=reject,c":                    "a@b.test%3Dreject%2Cc",
	} {
		if got := SafeAddress(in); got != want {
			t.Errorf("SafeAddress(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"alice@a.test":           "alice@a.test",
		"x=y@a.test":             "x%3Dy@a.test",
		"mé\xff=x@bücher.test":   "m%C3%A9%FF%3Dx@b%C3%BCcher.test",
		"\"a b\"@[IPv6:2001::1]": "%22a%20b%22@[IPv6:2001::1]",
	} {
		if got := SafeASCII(in); got != want {
			t.Errorf("SafeASCII(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzSafeAddress(f *testing.F) {
	f.Add(`"x result=pass"@e.test`)
	f.Add("a@b\xff;=")
	f.Fuzz(func(t *testing.T, s string) {
		if got := SafeAddress(s); strings.ContainsAny(got, "\x00\t\r\n \"=;,\\()<>") || strings.Count(got, "@") > 1 {
			t.Errorf("SafeAddress(%q) = %q", s, got)
		}
	})
}
