package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/testmta"
)

// keyPiece is how much of a key nobody would write by chance.
const keyPiece = 8

// A keySearch looks for pieces of keys.
type keySearch struct{ pieces map[[keyPiece]byte]bool }

func newKeySearch(keys []string) keySearch {
	s := keySearch{make(map[[keyPiece]byte]bool)}
	for _, k := range keys {
		for i := 0; i+keyPiece <= len(k); i++ {
			s.pieces[[keyPiece]byte([]byte(k[i:]))] = true
		}
	}
	return s
}

// in reports whether there is a piece of a key in content, and what stands around it
// with the piece left out.
func (s keySearch) in(content []byte) (where string, found bool) {
	for i := 0; i+keyPiece <= len(content); i++ {
		if s.pieces[[keyPiece]byte(content[i:])] {
			before := content[max(0, i-80):i]
			return fmt.Sprintf("behind %q", before), true
		}
	}
	return "", false
}

// logged reads the milter's lines about messages.
var logged = regexp.MustCompile(`(?m)^.* msg=message qid=("[^"]*"|\S+) .*? from=(\S+) .*?\baction=(\S+)`)

func parseLog(log []byte) (lines []logLine) {
	for _, m := range logged.FindAllSubmatch(log, -1) {
		lines = append(lines, logLine{QueueID: string(m[1]), From: string(m[2]), Action: string(m[3])})
	}
	return lines
}

// id is the message's id in a Message-ID, or else the whole Message-ID.
func id(messageID string) string {
	inner := strings.Trim(messageID, "<> ")
	if id, ok := strings.CutSuffix(inner, "@storm.test"); ok {
		return id
	}
	return inner
}

// received reads a copy.
func received(m testmta.Message) delivery {
	d := delivery{ID: id(m.Get("Message-ID")), Rcpt: m.Recipient, Keys: m.Values("X-Auth-Key")}
	d.addResults(m.Values("Authentication-Results"))
	return d
}

func (d *delivery) addResults(fields []string) {
	for _, f := range fields {
		r, from := results(f)
		d.Results, d.Froms = append(d.Results, r...), append(d.Froms, from...)
	}
}

// report reads a DSN or a notice.
func report(m testmta.Message) notification {
	r := notification{Kind: m.Get("X-Authkey-Report"), ID: id(m.Get("In-Reply-To")), To: m.Recipient}
	if r.Kind == "dsn" {
		for line := range strings.Lines(string(m.Raw)) {
			if about, ok := strings.CutPrefix(strings.TrimSpace(line), "Final-Recipient: rfc822; "); ok {
				r.About = append(r.About, about)
			}
		}
	}
	return r
}

// observe adds to the observations what can be read at the end, once nothing is queued, and
// looks for keys in all of it.
func (w *world) observe(b *observations, keys []string) (faults []fault, err error) {
	attached := make(map[string]string) // by message
	for _, h := range b.Letters {
		attached[h.ID] = h.Want.Attached
	}
	search := newKeySearch(keys)
	look := func(place string, content []byte, except string) {
		if except != "" {
			content = bytes.ReplaceAll(content, []byte(except), nil)
		}
		if where, found := search.in(content); found {
			faults = append(faults, fault{What: fmt.Sprintf("a piece of a key is in %s, %s", place, where)})
		}
	}
	all, err := w.mta.Deliveries()
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		d := received(m)
		b.Deliveries = append(b.Deliveries, d)
		look(fmt.Sprintf("the copy of %s to %s", d.ID, d.Rcpt), m.Raw, attached[d.ID])
	}
	held, err := w.mta.Held()
	if err != nil {
		return nil, err
	}
	for _, entry := range held {
		content, err := w.mta.Cat(entry.ID)
		if err != nil {
			return nil, err
		}
		header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(content))).ReadMIMEHeader()
		if err != nil {
			return nil, fmt.Errorf("held %s: %w", entry.ID, err)
		}
		for _, rcpt := range entry.Recipients {
			d := delivery{ID: id(header.Get("Message-Id")), Rcpt: rcpt, Held: true, Keys: header.Values("X-Auth-Key")}
			d.addResults(header.Values("Authentication-Results"))
			b.Deliveries = append(b.Deliveries, d)
		}
		look("held "+entry.ID, content, "")
	}
	reports, err := w.Told.Deliveries()
	if err != nil {
		return nil, err
	}
	for _, m := range reports {
		r := report(m)
		b.Told = append(b.Told, r)
		look(fmt.Sprintf("a %s about %s", r.Kind, r.ID), m.Raw, "")
	}
	log, err := os.ReadFile(w.milter.LogFile)
	if err != nil {
		return nil, err
	}
	b.Log = parseLog(log)
	for _, bad := range []string{"DATA RACE", "panic", "goroutine "} {
		if i := bytes.Index(log, []byte(bad)); i >= 0 {
			faults = append(faults, fault{What: fmt.Sprintf("the milter's log has %q: %s", bad, log[i:min(len(log), i+2000)])})
		}
	}
	if w.mta.Name() == "postfix" { // Sendmail's log is a transcript of the SMTP sessions
		look("Postfix's log", []byte(w.mta.Log()), "")
	}
	err = filepath.WalkDir(w.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err == nil {
			look(path, content, "")
		}
		if strings.HasPrefix(e.Name(), "core") {
			faults = append(faults, fault{What: "a core file is left: " + path})
		}
		return err
	})
	return faults, err
}

// usedKeys are all keys of messages and addresses.
func usedKeys(messages []*history, keys map[string]string) []string {
	var all []string
	for _, k := range keys {
		all = append(all, k)
	}
	for _, h := range messages {
		all = append(all, h.Keys...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
