package esmtp

import (
	"strings"
	"testing"
)

func TestDeclinesDSN(t *testing.T) {
	for args, want := range map[string]bool{
		"":                              false,
		"NOTIFY=NEVER":                  true,
		"notify=never":                  true,
		"NOTIFY=SUCCESS":                true,
		"NOTIFY=DELAY,SUCCESS":          true,
		"NOTIFY=FAILURE":                false,
		"NOTIFY=SUCCESS,failure":        false,
		"NOTIFY=FAILURES,NOFAILURE":     true,
		"NOTIFY=":                       false, // says nothing
		"NOTIFY":                        false,
		"ORCPT=rfc822;a@b NOTIFY=NEVER": true,
		"ORCPT=NOTIFY=NEVER":            false,
		"RET=HDRS":                      false,
		"XNOTIFY=NEVER":                 false,
		"NOTIFY= NOTIFY=NEVER":          true,
	} {
		if got := DeclinesDSN(args); got != want {
			t.Errorf("DeclinesDSN(%q) = %v", args, got)
		}
	}
}

func TestEnvelopeID(t *testing.T) {
	for args, want := range map[string]string{
		"":                           "",
		"ENVID=QQ314159":             "QQ314159",
		"ENVID=a+3D":                 "a=",
		"SIZE=1 envid=a+20b+3Dc":     "a b=c",
		"ENVID=+0D+0AX:1":            "",
		"ENVID=+4":                   "",
		"ENVID=+ZZ":                  "",
		"ENVID=é":                    "",
		"ENVID=\xff":                 "",
		"ENVID=" + long(maxParam):    long(maxParam),
		"ENVID=" + long(maxParam+1):  "",
		"RET=HDRS ENVIDX=1 XENVID=2": "",
	} {
		if got := EnvelopeID(args); got != want {
			t.Errorf("EnvelopeID(%q) = %q, want %q", args, got, want)
		}
	}
}

func long(n int) string { return strings.Repeat("a", n) }

func TestOriginalRecipient(t *testing.T) {
	for args, want := range map[string]string{ // "": none
		"ORCPT=rfc822;Bob+2BHome@Example.com":  "rfc822;Bob+Home@Example.com",
		`ORCPT=UTF-8;zo\x{EB}\x{2B}@a.example`: "utf-8;zoë+@a.example",
		"ORCPT=utf-8;zoë@a.example":            "utf-8;zoë@a.example",
		"ORCPT=utf-8;zo+C3+AB@a.example":       "utf-8;zoë@a.example",
		"NOTIFY=NEVER orcpt=x400;a":            "x400;a",
		"ORCPT=rfc822;a+0Ab":                   "",
		"ORCPT=rfc822;zoë@a.example":           "",
		"ORCPT=rfc822":                         "",
		"ORCPT=;a":                             "",
		"ORCPT=rfc822;":                        "",
		"ORCPT=a:b;c":                          "",
		`ORCPT=utf-8;a\x{0A}b`:                 "",
		`ORCPT=utf-8;a\x{2028}b`:               "",
		`ORCPT=utf-8;a\x{202E}b`:               "",
		`ORCPT=utf-8;a\x{`:                     "",
		`ORCPT=utf-8;a\x{zz}`:                  "",
		"ORCPT=utf-8;a+4":                      "",
		`ORCPT=utf-8;a\x{D800}`:                "",
		"ORCPT=utf-8;\xff":                     "",
		"ORCPT=rfc822;" + long(maxParam):       "rfc822;" + long(maxParam),
		"ORCPT=rfc822;" + long(maxParam+1):     "",
		"ORCPT=" + long(maxParam+1) + ";a":     "",
	} {
		got := ""
		if kind, address := OriginalRecipient(args); kind != "" || address != "" {
			got = kind + ";" + address
		}
		if got != want {
			t.Errorf("OriginalRecipient(%q) = %q, want %q", args, got, want)
		}
	}
}

// FuzzParams: whatever a client gives as parameters stays on one line.
func FuzzParams(f *testing.F) {
	f.Add("ENVID=a+20b RET=HDRS")
	f.Add(`ORCPT=utf-8;zo\x{EB}@a.example NOTIFY=NEVER`)
	f.Add("ORCPT=rfc822;a+0D+0A")
	f.Fuzz(func(t *testing.T, args string) {
		DeclinesDSN(args)
		if id := EnvelopeID(args); !isPrintable(id) || len(id) > maxParam {
			t.Errorf("EnvelopeID(%q) = %q", args, id)
		}
		kind, address := OriginalRecipient(args)
		if !isPrintable(kind) || strings.ContainsFunc(address, IsControl) || len(kind) > maxParam || len(address) > maxParam ||
			kind != TypeUTF8 && !isPrintable(address) || (kind == "") != (address == "") {
			t.Errorf("OriginalRecipient(%q) = %q, %q", args, kind, address)
		}
	})
}
