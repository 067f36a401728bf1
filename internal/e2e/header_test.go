package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// TestKeyIsFoundAndRemovedWhereverItStands puts the key in every odd place, and
// compares the delivered bytes with the sent ones.
func TestKeyIsFoundAndRemovedWhereverItStands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := mustKey(t, w, "alice@"+withAS)
	filler := strings.Repeat("X-Filler: one of three thousand\r\n", 3000)
	tests := []struct {
		name         string
		fields, tail string // around the usual header
		result       string
		removed      []string
		onlyPostfix  bool
	}{
		{name: "first", fields: "X-Auth-Key: " + key + "\r\n", result: "pass"},
		{name: "last", tail: "X-Auth-Key: " + key + "\r\n", result: "pass"},
		{name: "folded", fields: "X-Auth-Key:\r\n " + key + "\r\n", result: "pass"},
		{name: "folded and trailing blanks", fields: "X-Auth-Key: \r\n\t" + key + "  \r\n", result: "pass"},
		{name: "odd case", fields: "x-AUTH-kEy: " + key + "\r\n", result: "pass"},
		{name: "blank before the colon", fields: "X-Auth-Key : " + key + "\r\n", result: "pass"},
		{name: "empty", fields: "X-Auth-Key:\r\n", result: "nokey"},
		{name: "empty beside another", fields: "X-Auth-Key: \r\n", tail: "X-Auth-Key: " + key + "\r\n", result: "pass"},
		{name: "twice the same", fields: "X-Auth-Key: " + key + "\r\n", tail: "x-auth-key: " + key + "\r\n", result: "pass"},
		{name: "two different", fields: "X-Auth-Key: " + key + "\r\n", tail: "X-Auth-Key: other\r\n", result: "fail"},
		{name: "blank inside", fields: "X-Auth-Key: " + key[:5] + " " + key[5:] + "\r\n", result: "fail"},
		{name: "too long", fields: "X-Auth-Key: " + strings.Repeat("k", 600) + "\r\n", result: "fail"},
		{name: "behind 3000 fields", fields: filler + "X-Auth-Key: " + key + "\r\n", result: "pass",
			removed: []string{"X-Auth-Key: " + key + "\r\n"}, onlyPostfix: true}, // Sendmail's limit is 32 KB of header
	}
	for _, mtaKind := range mtas {
		t.Run(mtaKind.name, func(t *testing.T) {
			milter := startMilter(t, w, "")
			mta := startMTA(t, mtaKind.start, milter.Socket)
			c := dialSMTP(t, mta)
			for _, tt := range tests {
				if tt.onlyPostfix && mtaKind.name != "postfix" {
					continue
				}
				t.Run(tt.name, func(t *testing.T) {
					m := &mail{from: "alice@" + withAS, fields: tt.fields, tail: tt.tail}
					if out := sendMail(t, c, m); out.Final.Code != 250 {
						t.Fatalf("%d %s", out.Final.Code, out.Final.Text)
					}
					got := delivered(t, mta, m)
					removed := tt.removed
					if removed == nil {
						for _, field := range []string{tt.fields, tt.tail} {
							if field != "" {
								removed = append(removed, field)
							}
						}
					}
					checkContent(t, got, m, removed...)
					want := tt.result
					if want == "nokey" {
						want = "none"
					}
					if got := authRes(got); !strings.HasPrefix(got, "mx.test; x-authkey="+want) {
						t.Errorf("Authentication-Results %q, want %s", got, want)
					}
				})
			}
			if strings.Contains(milter.Log(), key) {
				t.Error("the key is in the milter's log")
			}
		})
	}
}

// TestEnvelopes sends envelope senders as no client should, and as odd ones do.
func TestEnvelopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.AddDomain("odd.test", "alice", `"a b"`, "per%cent", "δοκιμή"))
	port, _, err := w.ServeAS("odd.test")
	must(t, err)
	must(t, w.Publish("odd.test", lab.ASRecord(port)))
	tests := []struct {
		name, from, args string
		keyOf            string // mailbox whose key is attached, "" for alice's
		result           string // "x-authkey=…" and what follows; "" for no field at all
		onlyPostfix      bool
	}{
		{name: "plain", from: "alice@odd.test", result: "x-authkey=pass smtp.mailfrom=alice@odd.test"},
		{name: "upper-case domain", from: "alice@ODD.Test", result: "x-authkey=pass smtp.mailfrom=alice@odd.test"},
		{name: "needless quotes", from: `"alice"@odd.test`, result: "x-authkey=pass smtp.mailfrom=alice@odd.test", onlyPostfix: true},
		{name: "quoted blank", from: `"a b"@odd.test`, keyOf: `"a b"@odd.test`, result: "x-authkey=pass smtp.mailfrom=a%20b@odd.test"},
		{name: "percent", from: "per%cent@odd.test", keyOf: "per%cent@odd.test", result: "x-authkey=pass smtp.mailfrom=per%25cent@odd.test"},
		{name: "quoted CR", from: "\"a\rb\"@odd.test", result: `x-authkey=fail reason="invalid-key" smtp.mailfrom=a%0Db@odd.test`, onlyPostfix: true},
		{name: "sub-address", from: "alice+news@odd.test", result: "x-authkey=pass smtp.mailfrom=alice+news@odd.test"},
		{name: "source route", from: "@relay.test:alice@odd.test", result: "x-authkey=pass smtp.mailfrom=alice@odd.test"},
		{name: "trailing dot", from: "alice@odd.test.", result: "x-authkey=pass smtp.mailfrom=alice@odd.test", onlyPostfix: true},
		{name: "SMTPUTF8", from: "δοκιμή@odd.test", args: "SMTPUTF8", keyOf: "δοκιμή@odd.test",
			result: "x-authkey=pass smtp.mailfrom=%CE%B4%CE%BF%CE%BA%CE%B9%CE%BC%CE%AE@odd.test", onlyPostfix: true},
		{name: "null sender", from: "", result: ""},
		{name: "no domain", from: "alice", result: `x-authkey=none reason="no-domain"`, onlyPostfix: true},
		{name: "address literal", from: "alice@[127.0.0.1]", result: `x-authkey=none reason="domain-literal"`},
	}
	for _, mtaKind := range mtas {
		t.Run(mtaKind.name, func(t *testing.T) {
			milter := startMilter(t, w, "")
			mta := startMTA(t, mtaKind.start, milter.Socket)
			c := dialSMTP(t, mta)
			for _, tt := range tests {
				if tt.onlyPostfix && mtaKind.name != "postfix" {
					continue // Sendmail refuses it, or rewrites it before a milter sees it
				}
				t.Run(tt.name, func(t *testing.T) {
					keyOf := tt.keyOf
					if keyOf == "" {
						keyOf = "alice@odd.test"
					}
					m := &mail{from: tt.from, mailArgs: tt.args, fields: "X-Auth-Key: " + mustKey(t, w, keyOf) + "\r\n"}
					if out := sendMail(t, c, m); out.Final.Code != 250 {
						t.Fatalf("%d %s", out.Final.Code, out.Final.Text)
					}
					got := delivered(t, mta, m)
					checkContent(t, got, m, m.fields)
					want := ""
					if tt.result != "" {
						want = "mx.test; " + tt.result
					}
					if got := authRes(got); got != want {
						t.Errorf("Authentication-Results %q, want %q", got, want)
					}
				})
			}
		})
	}
}

// TestOneConnectionManyMessages has RSET, refused recipients and messages with and
// without a key on one connection.
func TestOneConnectionManyMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, mtaKind := range mtas {
		t.Run(mtaKind.name, func(t *testing.T) {
			milter := startMilter(t, w, "")
			mta := startMTA(t, mtaKind.start, milter.Socket)
			c := dialSMTP(t, mta)
			for i := range 3 {
				with := &mail{from: "alice@" + withAS, fields: "X-Auth-Key: " + mustKey(t, w, "alice@"+withAS) + "\r\n"}
				sendMail(t, c, with)
				if got := authRes(delivered(t, mta, with)); !strings.Contains(got, "x-authkey=pass") {
					t.Errorf("round %d: with a key: %q", i, got)
				}
				for _, line := range []string{"MAIL FROM:<alice@" + withAS + ">", "RCPT TO:<bob@rcpt.test>"} {
					if code, text, err := c.Cmd(line); err != nil || code != 250 {
						t.Fatalf("%s: %d %s, %v", line, code, text, err)
					}
				}
				must(t, c.Reset())
				without := &mail{from: "alice@" + withAS}
				sendMail(t, c, without)
				if got := authRes(delivered(t, mta, without)); !strings.Contains(got, `x-authkey=none reason="no AuthKey"`) {
					t.Errorf("round %d: without a key: %q", i, got)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			// Lines may follow the replies.
			must(t, testdaemon.Poll(ctx, func() (bool, error) { return strings.Count(milter.Log(), " result=nokey ") >= 3, nil }))
			if n := strings.Count(milter.Log(), "action=aborted"); n != 3 {
				t.Errorf("%d messages aborted, want 3:\n%s", n, milter.Log())
			}
			if !strings.Contains(milter.Log(), "cached=true") {
				t.Errorf("nothing came from the cache:\n%s", milter.Log())
			}
		})
	}
}

// claimed are fields that claim to be ours, in all the ways that somebody may read.
var claimed = []string{
	"Authentication-Results: mx.test; x-authkey=pass smtp.mailfrom=alice@pass.test\r\n",
	"authentication-results: MX.TEST (ours) 1;\r\n\tdkim=pass; X-AuthKey (c) / 1 = pass\r\n",
	"Authentication-Results: \"mx.test\"; x-authkey=pass\r\n",
	"Authentication-Results: old.test; x-authkey=pass\r\n",
	"Authentication-Results: elsewhere.test; x-authkey=pass\r\n",
	"Authentication-Results:; x-authkey=pass\r\n",
	"Authentication-Results:\r\n x-authkey=pass\r\n",
	"Authentication-Results: \u00a0mx.test; x-authkey=pass\r\n",
	"Authentication-Results: \ufeffmx.test; x-authkey=pass\r\n",
	"Authentication-Results: mx.test; x-authkey\u200b=pass\r\n",
	"Authentication-Results: =?utf-8?q?mx.test=3B_x-authkey=3Dpass?=\r\n",
	"Authentication-Results: =?utf-8?b?bXgudGVzdDsgeC1hdXRoa2V5PXBhc3M=?=\r\n",
	"Authentication-Results: mx.test;\r\n\t=?us-ascii?q?x-auth?=\r\n =?us-ascii?q?key?= =pass\r\n",
	"Authentication-Results: mx.test; dkim=pass (x-authkey=pass)\r\n",
	"Authentication-Results: mx.test; spf=pass smtp.mailfrom=\"x; x-authkey=pass\"@far.test\r\n",
	"Authentication-Results: mx.test; x-auth\r\n \tkey=pass\r\n",
	"X-New-Auth-Key: planted\r\n",
	"X-Authkey-Quarantine: bob@rcpt.test; pass\r\n",
}

// TestClaimedResults: nobody's mail keeps what only we write, strangers', users' or
// relays'; but those of a relay that may, under our ids.
func TestClaimedResults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const others = "Authentication-Results: mx.test; spf=pass smtp.mailfrom=pass.test\r\n" +
		"Authentication-Results: elsewhere.test; dkim=pass header.d=x-authkey.test\r\nARC-Authentication-Results: i=1; mx.test; x-authkey=pass\r\n"
	for _, class := range []struct {
		name, more, env string
		result          string
		keeps           []string
	}{
		{name: "inbound", result: "mx.test; x-authkey=none"},
		{name: "submission", env: "AUTHKEY_MILTER_SUBMISSION_NETWORKS=127.0.0.0/8"},
		{name: "exempt", more: "exempt: {networks: [127.0.0.0/8]}\n"},
		{name: "exempt that keeps", more: "exempt: {networks: [127.0.0.0/8], keep_results: true}\n", keeps: slices.DeleteFunc(slices.Clone(claimed), func(f string) bool {
			_, value, _ := strings.Cut(f, ": ")
			return !strings.HasPrefix(value, "mx.test;") && !strings.HasPrefix(value, "old.test;")
		})},
	} {
		for _, mtaKind := range mtas {
			t.Run(class.name+"/"+mtaKind.name, func(t *testing.T) {
				milter, err := w.NewMilter(binary, "unix")
				must(t, err)
				if class.env != "" {
					milter.Env = []string{class.env}
				}
				must(t, milter.Configure("trusted_authserv_ids: [old.test]\n"+class.more))
				must(t, milter.StartListening(t.Context()))
				mta := startMTA(t, mtaKind.start, milter.Socket)
				m := &mail{from: "alice@" + withAS, fields: claimed[0] + others + strings.Join(claimed[1:], "")}
				sendMail(t, dialSMTP(t, mta), m)
				got := delivered(t, mta, m)
				gone := slices.DeleteFunc(slices.Clone(claimed), func(f string) bool { return slices.Contains(class.keeps, f) })
				checkContent(t, got, m, gone...)
				if got := authRes(got); !strings.HasPrefix(got, class.result) || class.result == "" && got != "" {
					t.Errorf("Authentication-Results %q, want %q", got, class.result)
				}
			})
		}
	}
}

// TestTooManyClaims: more than are deleted of mail of any class are refused, also in
// test mode.
func TestTooManyClaims(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, env := range []string{"", "AUTHKEY_MILTER_SUBMISSION_NETWORKS=127.0.0.0/8", "AUTHKEY_MILTER_EXEMPT_NETWORKS=127.0.0.0/8"} {
		milter, err := w.NewMilter(binary, "unix")
		must(t, err)
		if env != "" {
			milter.Env = []string{env}
		}
		must(t, milter.Configure("mode: test\n"))
		must(t, milter.StartListening(t.Context()))
		mta := startMTA(t, mtas[0].start, milter.Socket)
		c := dialSMTP(t, mta)
		for _, field := range []string{"Authentication-Results: mx.test; x-authkey=pass\r\n", "X-New-Auth-Key: x\r\n"} {
			for _, n := range []int{256, 257} {
				m := &mail{from: "alice@" + withAS, fields: strings.Repeat(field, n)}
				switch out := sendMail(t, c, m); {
				case n > 256 && (out.Final.Code != 550 || !strings.Contains(out.Final.Text, "Too many authentication header fields")):
					t.Errorf("%s, %d of %q: %s", env, n, field, out.Final)
				case n == 256:
					if got := delivered(t, mta, m); bytes.Contains(got.Raw, []byte(field)) {
						t.Errorf("%s, %d of %q: some are left", env, n, field)
					}
				}
			}
		}
	}
}

// TestMilterProtocols runs Postfix with every milter_protocol it knows.
func TestMilterProtocols(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, protocol := range []int{2, 3, 4, 6} {
		t.Run(fmt.Sprint(protocol), func(t *testing.T) {
			t.Parallel()
			milter := startMilter(t, w, "")
			mta := startMTA(t, func(t *testing.T, socket string) (testmta.MTA, error) {
				return testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Milters: []string{socket}, MilterProtocol: protocol})
			}, milter.Socket)
			c := dialSMTP(t, mta)
			for _, each := range everyResult[:3] {
				action := "accept"
				if each.result == "fail" {
					action = "mark"
				}
				checkOne(t, w, milter, mta, c, each, action)
			}
		})
	}
}

// TestKeyPrependedByAPolicyService has another program of the receiving host put
// the key in.
func TestKeyPrependedByAPolicyService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := mustKey(t, w, "alice@"+withAS)
	service := startPolicyService(t, "PREPEND X-Auth-Key: "+key)
	milter := startMilter(t, w, "")
	mta := startMTA(t, func(t *testing.T, socket string) (testmta.MTA, error) {
		return testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Milters: []string{socket},
			Main: map[string]string{"smtpd_recipient_restrictions": "check_policy_service inet:" + service}})
	}, milter.Socket)
	m := &mail{from: "alice@" + withAS}
	sendMail(t, dialSMTP(t, mta), m)
	got := delivered(t, mta, m)
	if strings.Contains(string(got.Raw), key) {
		t.Errorf("the key survived:\n%s", got.Raw)
	}
	if got := authRes(got); !strings.HasPrefix(got, "mx.test; x-authkey=pass") {
		t.Errorf("Authentication-Results %q", got)
	}
}

// startPolicyService answers every Postfix policy request with one action.
func startPolicyService(t *testing.T, action string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					if line == "\n" { // the end of a request
						fmt.Fprintf(c, "action=%s\n\n", action)
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}
