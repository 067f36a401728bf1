package fromfield

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/testmta"
	"github.com/authkey/authkey/internal/wire"
)

// target is the address that hostile values try to show.
const target = "boss@bank.test"

// hostileValues are some thousand forms of the target: each change of its spelling in
// many contexts.
func hostileValues() (values []string) {
	spellings := []string{
		target, `"boss"@bank.test`, `"bo"."ss"@bank.test`, `boss@"bank.test"`, `boss@"bank".test`, `"boss@bank.test"`, "boss@bank.test.",
		"@r.test:boss@bank.test", "@r.test,@s.test:boss@bank.test", "boss@bank.test@evil.test", "x@evil.test@bank.test", "boss@@bank.test",
		"boss@BANK.TEST", "boss@[bank.test]", "boss@bank.test,", "boss@bank.test;", "boss@bank.test:", "boss＠bank.test", "boss@bank．test",
		"boss@bank。test", "=?utf-8?Q?boss=40bank.test?=", "=?utf-8?B?Ym9zc0BiYW5rLnRlc3Q=?=", "boss@=?utf-8?Q?bank?=.test", "=?utf-8?Q?boss?=@bank.test",
		"boss=?utf-8?Q?=40?=bank.test", "boss@bank.test=", "boss@bank.test/", "boss@bank.test\x00", "<boss@bank.test", "boss@bank.test>",
		"mailto:boss@bank.test", "boss@bank.test]", "boss@bank.test(", `boss@bank.test"`, "=?utf-7?Q?boss+AEA-bank.test?=",
		"ceo+" + strings.Repeat("a", 1100) + "@bank.test",
	}
	for _, piece := range []string{"(hi)", " ", "\t", "(a (b) c)", `" "`, `\`, "\x01", "\u00a0", "\u200b", "\u00ad", "\ufeff", `"`, "\u3000", "\x7f", "()", " (x) ", "\r\n "} {
		for _, at := range []int{0, 2, 4, 5, 7, 9, 10, len(target)} {
			spellings = append(spellings, target[:at]+piece+target[at:])
		}
	}
	contexts := []string{"%s", "<%s>", "Boss <%s>", `"Boss" <%s>`, "Boss Bo <%s >", "<<%s>>", "Boss <%s", "%s (Boss)", "(c) %s", "x@evil.test, %s",
		"%s, x@evil.test", "%s <x@evil.test>", `"%s" <x@evil.test>`, "x@evil.test <%s>", "Us: %s;", "<x@evil.test> <%s>", "<%s> <x@evil.test>",
		"(x@evil.test) %s", "x@evil.test (%s)", "Boss %s", "%s Boss", "Boss, Big <%s>", "[B] Boss <%s>", "\xe9 <%s>", "<%s> x", "a@n b@n c@n d@n <%s>",
		"'%s' <x@evil.test>", `"a <%s>" <x@evil.test>`, `" <%s>`, "( <%s>", "=?utf-8?Q?a <%s>?= <x@evil.test>", "=?utf-8?Q?a?= <%s>"}
	for i, s := range spellings {
		for j, c := range contexts {
			if (i+j)%3 == 0 || i == 0 { // every spelling in a third of the contexts
				values = append(values, strings.Replace(c, "%s", s, 1))
			}
		}
	}
	return values
}

// TestReaders holds our reading against those of other programs.
func TestReaders(t *testing.T) {
	everyday, hostile := everydayValues(t), hostileValues()
	var values []string
	for _, v := range everyday {
		values = append(values, v.field)
	}
	values = append(values, hostile...)
	found := readByOthers(t, values)

	t.Run("everyday", func(t *testing.T) {
		// What no more than half of them read, we still do: a line of testdata/everyday.txt
		// says what. Where most read one mailbox, it is ours.
		for i, v := range everyday {
			agreed := agreement(found[i])
			if agreed != "" && agreed != v.address {
				t.Errorf("%q: most of %v read %s, we %s", v.field, names(found[i]), agreed, v.address)
			}
		}
	})
	t.Run("hostile", func(t *testing.T) {
		shown, noticed := 0, 0
		for i, v := range hostile {
			by := showing(found[len(everyday)+i], "bank.test")
			if len(by) == 0 {
				continue
			}
			shown++
			r := read(v)
			if r.Excess || mentions(r, "bank.test") {
				noticed++
				continue
			}
			t.Errorf("%q: %v show bank.test, we read %s", v, by, outline(r))
		}
		if shown < len(hostile)/2 {
			t.Errorf("only %d of %d values show bank.test to anybody: the readers do not work", shown, len(hostile))
		}
		t.Logf("%d values, %d show the target to a reader, %d noticed", len(hostile), shown, noticed)
	})
	t.Run("agreed", func(t *testing.T) {
		agreed, same := 0, 0
		for i, v := range hostile {
			a := agreement(found[len(everyday)+i])
			if a == "" {
				continue
			}
			agreed++
			if slices.ContainsFunc(read(v).Mailboxes, func(m Mailbox) bool { return m.Address.String() == a }) {
				same++
			} else if len(a) <= wire.MaxAddress { // else the domain is all that we keep
				t.Errorf("%q: most read %s, we %s", v, a, outline(read(v)))
			}
		}
		t.Logf("%d values on which most readers agree, %d read alike", agreed, same)
	})
}

// mentions reports whether an address of the domain is in a Reading.
func mentions(r Reading, domain string) bool {
	for _, m := range r.Mailboxes {
		if m.Address.Domain() == domain {
			return true
		}
	}
	for _, a := range r.Shown {
		if a.Domain() == domain {
			return true
		}
	}
	return false
}

// showing are the readers that show an address of the domain.
func showing(found map[string][]string, domain string) (by []string) {
	for _, name := range names(found) {
		if slices.ContainsFunc(found[name], func(a string) bool { return strings.HasSuffix(plainForm(a), "@"+domain) }) {
			by = append(by, name)
		}
	}
	return by
}

// agreement is the ordinary address that more than half of the readers find; "" where
// there is none, or more than one.
func agreement(found map[string][]string) (agreed string) {
	count := make(map[string]int)
	for _, list := range found {
		for _, a := range slices.Compact(slices.Sorted(slices.Values(mapped(list)))) {
			count[a]++
		}
	}
	for a, n := range count {
		if 2*n > len(found) && ordinary.MatchString(a) {
			if agreed != "" {
				return ""
			}
			agreed = a
		}
	}
	return agreed
}

var ordinary = regexp.MustCompile(`^[A-Za-z0-9._+/=&#!'-]+@[a-z0-9-]+(\.[a-z0-9-]+)+$`)

func mapped(list []string) (out []string) {
	for _, a := range list {
		out = append(out, plainForm(a))
	}
	return out
}

// plainForm evens out what readers leave as it is: quotes around a local part, the case
// of a domain, the dot after it.
func plainForm(a string) string {
	local, domain, _ := esmtp.Cut(a)
	local = strings.Trim(local, " ")
	if n := len(local); n > 1 && local[0] == '"' && local[n-1] == '"' {
		local = local[1 : n-1]
	}
	return local + "@" + strings.TrimSuffix(strings.ToLower(strings.Trim(domain, " ")), ".")
}

func names(found map[string][]string) (all []string) {
	for name := range found {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// readByOthers returns for each value what each reader finds in it.
func readByOthers(t *testing.T, values []string) []map[string][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := testmta.EnsureReaders(ctx, t.Logf); err != nil {
		t.Fatal(err)
	}
	var in bytes.Buffer
	for _, v := range values {
		fmt.Fprintln(&in, base64.StdEncoding.EncodeToString([]byte(v)))
	}
	all := make([]map[string][]string, len(values))
	for i := range all {
		all[i] = make(map[string][]string)
	}
	for _, command := range [][]string{{"/usr/bin/python3", "read.py"}, {"/usr/bin/perl", "read.pl"}, {"node", "read.js"}} {
		cmd := exec.CommandContext(ctx, command[0], filepath.Join("testdata/readers", command[1]))
		cmd.Env = append(os.Environ(), "NODE_PATH=/usr/share/nodejs", "PYTHONIOENCODING=utf-8")
		cmd.Stdin = bytes.NewReader(in.Bytes())
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", command, err, errs.Bytes())
		}
		lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if len(lines) != len(values) {
			t.Fatalf("%v: %d lines for %d values", command, len(lines), len(values))
		}
		for i, line := range lines {
			if err := json.Unmarshal([]byte(line), &all[i]); err != nil {
				t.Fatalf("%v: %q: %v", command, line, err)
			}
		}
	}
	for i, list := range envelopes(t, ctx, values) {
		all[i]["Dovecot"] = list
	}
	return all
}

// envelopes returns the From addresses in the ENVELOPE that a real Dovecot gives of
// messages with these fields.
func envelopes(t *testing.T, ctx context.Context, values []string) [][]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "authkey-dovecot-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	conf := strings.ReplaceAll(`base_dir = DIR/run
log_path = /dev/stderr
mail_location = maildir:DIR/mail
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
first_valid_gid = 1
ssl = no
`, "DIR", dir)
	if err := os.WriteFile(filepath.Join(dir, "dovecot.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "mail", sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, v := range values {
		// The names are in the order of the values.
		if err := os.WriteFile(filepath.Join(dir, "mail/cur", fmt.Sprintf("%d.M%dP1.host:2,", 1700000000+i, i)),
			[]byte("From: "+v+"\r\nSubject: "+fmt.Sprint(i)+"\r\n\r\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", `chown -R nobody:nogroup "$0" && exec doveadm -c "$0/dovecot.conf" exec imap`, dir)
	cmd.Env = append(os.Environ(), "HOME="+dir, "USER=nobody")
	// Its input stays open to the end: where that ends, Dovecot does not finish writing.
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "a SELECT INBOX\r\nb FETCH 1:* ENVELOPE\r\nc LOGOUT\r\n"); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("dovecot: %v\n%s\n%s", err, stdout.Bytes(), errs.Bytes())
	}
	out := stdout.Bytes()
	all := make([][]string, len(values))
	got := 0
	for {
		_, rest, found := bytes.Cut(out, []byte(" FETCH ("))
		if !found {
			break
		}
		fetched, rest := imapValue(append([]byte("("), rest...))
		out = rest
		envelope := fetched.([]any)[1].([]any)
		i, err := strconv.Atoi(envelope[1].(string)) // the Subject
		if err != nil || i >= len(values) {
			t.Fatalf("dovecot: %v", envelope)
		}
		got++
		from, _ := envelope[2].([]any)
		for _, each := range from {
			local, _ := each.([]any)[2].(string)
			domain, _ := each.([]any)[3].(string)
			if domain != "" && domain != "MISSING_DOMAIN" && domain != "SYNTAX_ERROR" {
				all[i] = append(all[i], local+"@"+domain)
			}
		}
	}
	if got != len(values) {
		t.Fatalf("dovecot: %d envelopes of %d\n%s", got, len(values), errs.Bytes())
	}
	return all
}

// imapValue reads one value of RFC 3501: a list, a string, a literal or an atom, of
// which NIL is nil.
func imapValue(in []byte) (value any, rest []byte) {
	switch in[0] {
	case '(':
		list := []any{}
		in = in[1:]
		for in[0] != ')' {
			if in[0] == ' ' {
				in = in[1:]
				continue
			}
			value, in = imapValue(in)
			list = append(list, value)
		}
		return list, in[1:]
	case '"':
		var b []byte
		for in = in[1:]; in[0] != '"'; in = in[1:] {
			if in[0] == '\\' {
				in = in[1:]
			}
			b = append(b, in[0])
		}
		return string(b), in[1:]
	case '{':
		size, rest, _ := bytes.Cut(in[1:], []byte("}\r\n"))
		n, err := strconv.Atoi(string(size))
		if err != nil {
			panic(err)
		}
		return string(rest[:n]), rest[n:]
	}
	n := bytes.IndexAny(in, " ()")
	if atom := string(in[:n]); atom != "NIL" {
		return atom, in[n:]
	}
	return nil, in[n:]
}
