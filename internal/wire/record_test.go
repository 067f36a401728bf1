package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestRecordString(t *testing.T) {
	for _, c := range []struct {
		record       Record
		text, server string
	}{
		{Record{Server{"as.example.com", 7425, false}, 10, false}, "AS=as.example.com:7425", "as.example.com:7425"},
		{Record{Server{"as.example.com", 7425, true}, 20, true}, "AS=as.example.com:7425; pri=20; tls=yes; req=yes", "tls:as.example.com:7425"},
		{Record{Server{"2001:db8::1", 1, true}, 0, false}, "AS=[2001:db8::1]:1; pri=0; tls=yes", "tls:[2001:db8::1]:1"},
		{Record{Server{"192.0.2.1", 65535, false}, 10, true}, "AS=192.0.2.1:65535; req=yes", "192.0.2.1:65535"},
	} {
		if got := c.record.String(); got != c.text {
			t.Errorf("record: %s, want %s", got, c.text)
		}
		if got := c.record.Server.String(); got != c.server {
			t.Errorf("server: %s, want %s", got, c.server)
		}
		checkRecord(t, c.record)
	}
}

// checkRecord tests what holds for every Record that ParseRecord made.
func checkRecord(t *testing.T, rec Record) {
	t.Helper()
	if rec.Host == "" || rec.Port == 0 {
		t.Errorf("record without host or port: %+v", rec)
	}
	if again, err := ParseRecord(rec.String()); err != nil || again != rec {
		t.Errorf("%+v, published as %q, is read as %+v, %v", rec, rec, again, err)
	}
}

func TestRecordSize(t *testing.T) {
	head := "AS=as.example.com:7425; x="
	for _, c := range []struct {
		size int
		want error
	}{{maxRecord, nil}, {maxRecord + 1, ErrMalformed}} {
		if _, err := ParseRecord(head + strings.Repeat("x", c.size-len(head))); !errors.Is(err, c.want) {
			t.Errorf("%d octets: %v, want %v", c.size, err, c.want)
		}
	}
}

// Errors say where a record is wrong, in a text that can be logged.
func TestRecordErrorText(t *testing.T) {
	for _, c := range []struct{ txt, part string }{
		{"AS=as.example.com", `"as.example.com" has no port`},
		{"AS=as.example.com:x", `port "x" is not 1 to 65535`},
		{"AS=a b:1", `host "a b"`},
		{"AS=a:1; tls", `"tls" is not tag=value`},
		{"AS=a:1; tls=1", `tls="1" is neither yes nor no`},
		{"AS=a:1; pri=x", `pri="x" is not 0 to 65535`},
		{"AS=a:1; req=no; req=no", "tag req given twice"},
		{"AS=a:1; x=\x1b[2J", `"x=\x1b[2J"`},
		{"AS=\n:1", `host "\n"`},
		{"AS=a:1; tls=" + strings.Repeat("ü", 500), "blank or control character"},
		{"AS=" + strings.Repeat("\x00", 500), `has no port`},
	} {
		_, err := ParseRecord(c.txt)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %v, want ErrMalformed", c.txt, err)
			continue
		}
		text := err.Error()
		if !strings.Contains(text, c.part) || len(text) > 400 || strings.ContainsAny(text, "\x00\n\x1b") {
			t.Errorf("%.40q: error of %d octets: %s", c.txt, len(text), text)
		}
	}
}

func TestSetRefused(t *testing.T) {
	set := ParseSet([]string{"AS=a.example:1", "v=spf1", "AS=b.example", "AS=c.example:1; tls=yes", "AS=d.example:1; v=9"})
	want := []struct {
		text string
		why  error
	}{{"AS=b.example", ErrMalformed}, {"AS=a.example:1", ErrDowngrade}}
	if len(set.Refused) != len(want) {
		t.Fatalf("refused: %v, want %v", set.Refused, want)
	}
	for i, w := range want {
		if r := set.Refused[i]; r.Text != w.text || !errors.Is(r.Why, w.why) {
			t.Errorf("refusal %d: %q, %v, want %q, %v", i, r.Text, r.Why, w.text, w.why)
		}
	}
	if len(set.Records) != 1 || !set.Published() {
		t.Errorf("records %v, published %v", set.Records, set.Published())
	}
}

// Nobody fills a log or memory with records that are refused.
func TestSetRefusedIsBounded(t *testing.T) {
	txts := make([]string, 1000)
	for i := range txts {
		txts[i] = "AS=" + strings.Repeat("x", 60000)
	}
	set := ParseSet(txts)
	total := 0
	for _, r := range set.Refused {
		total += len(r.Text) + len(r.Why.Error())
	}
	if len(set.Refused) == 0 || total > 32*1024 {
		t.Errorf("%d refusals of %d octets", len(set.Refused), total)
	}
	if !set.Published() || set.Required {
		t.Errorf("published %v, required %v", set.Published(), set.Required)
	}
}

// reverse stands in for rand.Shuffle.
func reverse(n int, swap func(i, j int)) {
	for i := range n / 2 {
		swap(i, n-1-i)
	}
}

// Only servers of equal pri are mixed, and each group on its own.
func TestOrderShuffle(t *testing.T) {
	set := ParseSet([]string{
		"AS=a:1; pri=5", "AS=a:2", "AS=a:3", "AS=a:4; pri=20", "AS=a:5; pri=20", "AS=a:6; pri=20", "AS=a:7; pri=30",
	})
	var groups []int
	shuffle := func(n int, swap func(i, j int)) {
		groups = append(groups, n)
		reverse(n, swap)
	}
	before := slices.Clone(set.Records)
	var ports []uint16
	for _, s := range set.Order(shuffle) {
		ports = append(ports, s.Port)
	}
	if want := []uint16{1, 3, 2, 6, 5, 4, 7}; !slices.Equal(ports, want) {
		t.Errorf("order %v, want %v", ports, want)
	}
	if want := []int{2, 3}; !slices.Equal(groups, want) {
		t.Errorf("shuffled groups of %v, want %v", groups, want)
	}
	if !slices.Equal(set.Records, before) {
		t.Errorf("Order changed the set: %v, was %v", set.Records, before)
	}
}

// Of more than MaxServers equals each gets its turn.
func TestOrderSpreadsLoad(t *testing.T) {
	const servers = 12
	var txts []string
	for i := range servers {
		txts = append(txts, fmt.Sprintf("AS=a:%d", i+1))
	}
	set := ParseSet(txts)
	random := rand.New(rand.NewPCG(3, 3))
	first := make(map[uint16]int)
	for range 1000 {
		order := set.Order(random.Shuffle)
		if len(order) != MaxServers {
			t.Fatalf("%d servers, want %d", len(order), MaxServers)
		}
		first[order[0].Port]++
	}
	if len(first) != servers {
		t.Errorf("only %d of %d servers were ever first: %v", len(first), servers, first)
	}
}

func TestOrderOfNothing(t *testing.T) {
	shuffle := func(int, func(i, j int)) { t.Error("nothing to shuffle") }
	if got := (Set{}).Order(shuffle); len(got) != 0 {
		t.Errorf("order of an empty set: %v", got)
	}
}

// checkSet tests what holds for every Set that ParseSet made.
func checkSet(t *testing.T, txts []string, set Set) {
	t.Helper()
	secure := slices.ContainsFunc(set.Records, func(r Record) bool { return r.TLS })
	for i, rec := range set.Records {
		checkRecord(t, rec)
		if rec.TLS != secure {
			t.Errorf("clear text beside TLS: %v", set.Records)
		}
		if i > 0 && set.Records[i-1].Pri > rec.Pri {
			t.Errorf("not sorted by pri: %v", set.Records)
		}
		if rec.Required && !set.Required {
			t.Errorf("a record requires keys, the set does not: %v", set.Records)
		}
	}
	order := set.Order(reverse)
	if len(order) > MaxServers || (len(order) == 0) != (len(set.Records) == 0) {
		t.Errorf("%d servers of %d records", len(order), len(set.Records))
	}
	for i, s := range order {
		if slices.Contains(order[:i], s) {
			t.Errorf("%v is asked twice: %v", s, order)
		}
	}
	// The order in which DNS gives the records does not matter.
	backwards := slices.Clone(txts)
	slices.Reverse(backwards)
	other := ParseSet(backwards)
	if other.Published() != set.Published() || other.Required != set.Required || len(other.Order(reverse)) != len(order) {
		t.Errorf("%q backwards: %+v, forwards %+v", txts, other, set)
	}
}

func TestServerIsAddress(t *testing.T) {
	for txt, want := range map[string]bool{"AS=192.0.2.1:7425": true, "AS=[2001:db8::1]:7425": true, "AS=as.example.com:7425": false, "AS=1.example:7425": false} {
		rec, err := ParseRecord(txt)
		if err != nil {
			t.Errorf("%s: %v", txt, err)
		} else if got := rec.Server.IsAddress(); got != want {
			t.Errorf("%s has an address: %v", txt, got)
		}
	}
}
