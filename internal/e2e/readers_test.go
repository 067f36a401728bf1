package e2e

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"mime"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testmta"
)

var (
	sieveBlock  = regexp.MustCompile("(?s)```sieve\n(.*?)```")
	regexpBlock = regexp.MustCompile("(?s)```regexp\n(.*?)```")
	sloppyPass  = regexp.MustCompile(`(?i)x-authkey\s*=\s*pass`)
)

// TestReadersOfTheResult: no text of a sender's is taken for our result, by the matches
// that docs/policy.md has for Sieve and Postfix, which run in those, nor by programs
// that split the field at ";" or search it.
func TestReadersOfTheResult(t *testing.T) {
	must(t, testmta.EnsureSieve(t.Context(), t.Logf))
	doc, err := os.ReadFile(policyDoc)
	must(t, err)
	sieve, table := sieveBlock.FindSubmatch(doc), regexpBlock.FindSubmatch(doc)
	if sieve == nil || table == nil {
		t.Fatal("docs/policy.md has no matches")
	}
	w := newWorld(t)
	milter := startMilter(t, w, "policy: {fail: accept}\n")
	checks := filepath.Join(w.Dir, "checks")
	must(t, os.WriteFile(checks, table[1], 0o644))
	mta := startMTA(t, func(t *testing.T, socket string) (testmta.MTA, error) {
		return testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Hostname: "mx.example.com", Milters: []string{socket},
			Main: map[string]string{"milter_header_checks": "regexp:" + checks}})
	}, milter.Socket)

	key := "X-Auth-Key: " + mustKey(t, w, "alice@"+withAS) + "\r\n"
	mails := map[string][]*mail{
		"Proven": {
			{from: "alice@" + withAS, fields: key},
			{from: "", author: "alice@" + withAS, fields: key}, // the From field alone has a result
			{from: "alice@" + withAS, fields: key + strings.Join(claimed, "")},
		},
		"Forged": {
			{from: "alice@" + withAS, fields: "X-Auth-Key: wrong\r\n"},
			{from: "alice@" + requiring},
			{from: "x-authkey=pass@none.test", author: "alice@" + requiring},
			{from: "", author: "alice@" + requiring},
		},
	}
	for _, local := range []string{"x-authkey=pass", `"x; x-authkey=pass"`, `"x;x-authkey=pass"`, `"x; x-authkey=pass header.from=alice@pass.test"`,
		`"\tx-authkey=pass header.from=a"`, "x-authkey=pass/header.from=a", `"mx.example.com; x-authkey=pass"`, "x-authkey=fail"} {
		mails[""] = append(mails[""],
			&mail{from: local + "@none.test", author: "bob@none.test"},
			&mail{from: "bob@none.test", author: local + "@none.test"},
			&mail{from: local + "@pass.test", author: local + "@pass.test"})
	}
	for _, field := range claimed {
		for _, id := range []string{"mx.example.com", "elsewhere.test"} {
			mails[""] = append(mails[""], &mail{from: "bob@none.test", author: "alice@pass.test", fields: strings.ReplaceAll(field, "mx.test", id)})
		}
	}
	c := dialSMTP(t, mta)
	qids := make(map[*mail]string)
	for _, m := range slices.Concat(mails["Proven"], mails["Forged"], mails[""]) {
		out := sendMail(t, c, m)
		if !out.Accepted {
			t.Fatalf("<%s>: %s", m.from, out.Final)
		}
		qids[m] = out.QueueID()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, mta.WaitIdle(ctx))
	all, err := mta.Deliveries()
	must(t, err)
	copies := make(map[string]testmta.Message)
	var raw [][]byte
	for _, d := range all {
		copies[d.Get("Subject")] = d
		raw = append(raw, d.Raw)
	}
	filed, err := testmta.Sieve(t.Context(), string(sieve[1]), raw...)
	must(t, err)
	said := postmap(t, checks, all)
	if want := map[string]int{"proven": len(mails["Proven"]), "forged": len(mails["Forged"])}; !maps.Equal(said, want) {
		t.Errorf("header checks say %v, want %v", said, want)
	}
	log := mta.Log()
	for folder, list := range mails {
		for _, m := range list {
			got, ok := copies[m.subject]
			if !ok {
				t.Errorf("<%s> is not delivered", m.from)
				continue
			}
			into := filed[slices.IndexFunc(all, func(d testmta.Message) bool { return d.Get("Subject") == m.subject })]
			if want := []string{cmp.Or(folder, "INBOX")}; !slices.Equal(into, want) {
				t.Errorf("Sieve files into %q, want %q:\n%s", into, want, got.Raw)
			}
			for what, text := range map[string]string{"Proven": ": proven", "Forged": ": forged"} {
				if logged := strings.Contains(warnings(log, qids[m]), text); logged != (what == folder) {
					t.Errorf("milter_header_checks said%s: %v\n%s", text, logged, got.Raw)
				}
			}
			if passes := sloppy(got); passes != (folder == "Proven") {
				t.Errorf("a search finds a pass: %v\n%s", passes, got.Raw)
			}
		}
	}
}

// postmap says how often a table of header checks says something about the headers of
// messages.
func postmap(t *testing.T, table string, messages []testmta.Message) map[string]int {
	t.Helper()
	var all bytes.Buffer
	for _, m := range messages {
		header, _, _ := bytes.Cut(m.Raw, []byte("\n\n"))
		all.Write(append(header, '\n'))
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "main.cf"), []byte("compatibility_level = 3.6\n"), 0o644))
	cmd := exec.CommandContext(t.Context(), "postmap", "-c", dir, "-h", "-q", "-", "regexp:"+table)
	cmd.Stdin = &all
	out, err := cmd.Output()
	must(t, err)
	said := make(map[string]int)
	for line := range strings.Lines(string(out)) {
		if _, what, ok := strings.Cut(line, "\tWARN "); ok {
			said[strings.TrimSpace(what)]++
		}
	}
	return said
}

// warnings are the lines of Postfix's log about header checks of a message.
func warnings(log, qid string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if strings.Contains(line, " "+qid+": ") && strings.Contains(line, "warning: header Authentication-Results") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// sloppy is how programs find a pass that do not parse the field.
func sloppy(m testmta.Message) bool {
	for _, value := range m.Values("Authentication-Results") {
		decoded, err := (&mime.WordDecoder{}).DecodeHeader(value)
		if err != nil {
			decoded = value
		}
		for _, text := range []string{value, decoded} {
			if sloppyPass.MatchString(text) {
				return true
			}
			for part := range strings.SplitSeq(text, ";") {
				if strings.HasPrefix(strings.ToLower(strings.TrimSpace(part)), "x-authkey=pass") {
					return true
				}
			}
		}
	}
	return false
}
