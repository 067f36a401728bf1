package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/milter"
)

var parse = wire.ParseAddress

// bobs is a message of Bob's.
func bobs(t testing.TB) milter.OwnMail {
	return milter.OwnMail{Login: "bob@example.com", Sender: "bob@example.com",
		From: addresses(t, "bob@example.com"), FromKnown: true, Recipients: []string{"x@y.example"}}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Options)
		want   []string
	}{
		{"authorize", func(o *Options) { o.Authorize = "anybody" }, []string{`authorize "anybody" is neither login nor map:FILE`}},
		{"map that is not there", func(o *Options) { o.Authorize = "map:/none" }, []string{"map of logins: open /none: no such file"}},
		{"no brand", func(o *Options) { o.Brand = "" }, []string{`brand "" is not`}},
		{"brand with a line break", func(o *Options) { o.Brand = "a\r\nb" }, []string{`brand "a\r\nb" is not printable ASCII`}},
		{"domain twice", func(o *Options) { o.Domains[1].Domain = "EXAMPLE.com." }, []string{"domain example.com: is there twice"}},
		{"bad to", func(o *Options) { o.Domains[1].To = []string{"a@b"} }, []string{`domain example.org: to "a@b": domain is not`}},
		{"several", func(o *Options) {
			o.Domains[0].AVT = 0
			o.Domains[1].SecretFile += ".none"
			o.Brand = ""
		}, []string{"domain example.com: avt 0s", "domain example.org: secret file:", `brand ""`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t)
			tt.change(&o)
			a, err := New(o, nil)
			if err == nil || a != nil {
				t.Fatalf("%v, %v", a, err)
			}
			lines := strings.Split(err.Error(), "\n")
			if !slices.EqualFunc(lines, tt.want, strings.HasPrefix) {
				t.Errorf("%q, want %q", lines, tt.want)
			}
		})
	}
}

// What is attached is what the domain's Authentication Server calls valid, and no
// longer once the address is revoked there.
func TestServerAgrees(t *testing.T) {
	o := options(t)
	a := start(t, o)
	conf := o.Domains[0].Config
	conf.TTL = time.Hour
	server, err := keyring.Open(conf)
	if err == nil {
		err = server.Reload()
	}
	if err != nil {
		t.Fatal(err)
	}
	valid := func(k wire.Key) bool {
		answer, err := server.Verify(address(t, "bob@example.com"), k, midday)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Valid
	}
	first := a.attachAt(bobs(t), midday)
	if first.Note != "" || !valid(first.Key) {
		t.Errorf("reason %q, valid %v", first.Note, valid(first.Key))
	}
	if next := a.attachAt(bobs(t), midday.Add(24*time.Hour)); next.Key.Equal(first.Key) {
		t.Error("the key never changes")
	}

	// The server hears of it first: its list is the same file here.
	list := strings.TrimPrefix(conf.Addresses, "file:")
	write(t, list, "bob gen=1\n#\n#\n")
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	if valid(first.Key) || valid(a.attachAt(bobs(t), midday).Key) {
		t.Error("a revoked key is valid")
	}
	reload(t, a)
	if !valid(a.attachAt(bobs(t), midday).Key) {
		t.Error("the new key is not valid")
	}

	// A second secret, on the server first, then on top here, then alone.
	for i, text := range []string{secretA + secretB, secretB + secretA, secretB} {
		write(t, conf.SecretFile, text)
		if err := server.Reload(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			reload(t, a)
		}
		if !valid(a.attachAt(bobs(t), midday).Key) {
			t.Errorf("step %d of the rotation: not valid", i)
		}
	}
}

func TestNoList(t *testing.T) {
	o := options(t)
	list := strings.TrimPrefix(o.Domains[0].Addresses, "file:")
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	send, err := New(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.TempFail = true
	wait, err := New(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	carols := milter.OwnMail{Login: "carol@example.com", Sender: "bob@example.com", From: bobs(t).From, FromKnown: true, Recipients: []string{"x@y.example"}}
	cased := bobs(t)
	cased.Login = "BOB@example.com"
	tests := []struct {
		a    *Attacher
		s    milter.OwnMail
		want milter.Attachment
	}{
		{send, bobs(t), milter.Attachment{Note: string(NoList), Strip: true}},
		{wait, bobs(t), milter.Attachment{Note: string(NoList), Strip: true, Defer: true}},
		{wait, cased, milter.Attachment{Note: string(NoList), Strip: true, Defer: true}},
		{wait, carols, milter.Attachment{Note: string(SenderNotAllowed), Strip: true}}, // however long she waits
	}
	check := func() {
		t.Helper()
		for i, tt := range tests {
			if got := tt.a.attachAt(tt.s, midday); got.Note != tt.want.Note || got.Strip != tt.want.Strip || got.Defer != tt.want.Defer || !got.Key.IsZero() || got.Agent != "" {
				t.Errorf("%d: %+v, want %+v", i, got, tt.want)
			}
		}
	}
	check()
	var failed []string
	for _, a := range []*Attacher{send, wait} {
		a.Reload(func(d *keyring.Domain, err error) {
			if err != nil {
				failed = append(failed, d.Name())
			}
		})
	}
	if want := []string{"example.com", "example.com"}; !slices.Equal(failed, want) {
		t.Errorf("%q, want %q", failed, want)
	}
	check()
	write(t, list, "bob\n")
	reload(t, wait)
	if got := wait.attachAt(bobs(t), midday); got.Note != "" {
		t.Errorf("reason %q", got.Note)
	}

	// From now on a list that is gone does no harm, nor does a new configuration.
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	wait.Reload(func(*keyring.Domain, error) {})
	o.Domains[0].To = []string{"y.example"}
	o.Domains[1].Subaddress = "-"
	next, err := New(o, wait)
	if err != nil {
		t.Fatal(err)
	}
	if got := next.attachAt(bobs(t), midday); got.Note != "" {
		t.Errorf("after a reload: reason %q", got.Note)
	}
	other := milter.OwnMail{Login: "bob@example.org", Sender: "bob@example.org", From: addresses(t, "bob@example.org"), FromKnown: true, Recipients: []string{"x@partner.example"}}
	if got := next.attachAt(other, midday); Reason(got.Note) != NoList {
		t.Errorf("of a domain that changed: reason %q, want %q", got.Note, NoList)
	}
	if got := wait.attachAt(other, midday); got.Note != "" {
		t.Errorf("of the Attacher before: reason %q", got.Note)
	}
}

func TestWatch(t *testing.T) {
	o := options(t)
	list := strings.TrimPrefix(o.Domains[0].Addresses, "file:")
	a := start(t, o)
	before := a.attachAt(bobs(t), midday)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		var reports []string
		go func() {
			defer close(done)
			a.Watch(ctx, 5*time.Second, func(d *keyring.Domain, err error) {
				reports = append(reports, fmt.Sprint(d.Name(), " ", err == nil))
			})
		}()
		pass := func() { <-time.After(12 * time.Second); synctest.Wait() } // of the bubble's clock
		pass()
		write(t, list, "bob gen=7\n#\n#\n")
		pass()
		write(t, list, "bob gen=x\n")
		pass()
		cancel()
		<-done
		if want := []string{"example.com true", "example.com false"}; !slices.Equal(reports, want) {
			t.Errorf("%q, want %q", reports, want)
		}
	})
	after := a.attachAt(bobs(t), midday)
	if after.Note != "" || after.Key.Equal(before.Key) {
		t.Errorf("reason %q, same key %v", after.Note, after.Key.Equal(before.Key))
	}
}

// A map of which nothing is left does not take the place of one with lines, unless it says
// that this is meant. At the start it is believed, and it is said.
func TestEmptyMap(t *testing.T) {
	o := options(t)
	path := write(t, filepath.Join(t.TempDir(), "logins"), "bob@example.com bob\n")
	o.Authorize = "map:" + path
	full := start(t, o)
	for text, want := range map[string]struct{ refused, warned bool }{
		"": {true, true}, "# the head of it\n": {true, true}, "\uFEFF# empty\n": {false, false}, "bob@example.com bob\n": {false, false},
	} {
		write(t, path, text)
		if _, err := New(o, full); (err != nil) != want.refused || err != nil && !strings.Contains(err.Error(), "# empty") {
			t.Errorf("%q: %v", text, err)
		}
		a, err := New(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		if warned := strings.Contains(strings.Join(a.Warnings(), "\n"), path); warned != want.warned {
			t.Errorf("%q: warnings %q", text, a.Warnings())
		}
	}
	// Another file is no later state of the one in force.
	write(t, path, "")
	o.Authorize = "map:" + write(t, filepath.Join(t.TempDir(), "others"), "# nobody yet\n")
	if _, err := New(o, full); err != nil {
		t.Errorf("another map: %v", err)
	}
}

// Everything that a configuration says of attaching arrives.
func TestConfigured(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	c := config.Attach{Authorize: "map:/logins", Networks: networks, OnError: "tempfail", AllowOpenSecrets: true,
		Domains: []config.AttachDomain{{Domain: "a.test", Source: "secret:/secret", Addresses: "file:/list", AVT: time.Hour,
			CaseSensitive: true, Subaddress: "+", To: []string{"b.test"}}}}
	want := Options{Authorize: "map:/logins", Networks: networks, TempFail: true, Brand: "x",
		Domains: []Domain{{Config: keyring.Config{Form: keyring.Form{Domain: "a.test", CaseSensitive: true, Subaddress: "+"},
			SecretFile: "/secret", OpenSecret: true, Addresses: "file:/list", AVT: time.Hour}, To: []string{"b.test"}}}}
	if got := Configured(c, "x"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
	c.OnError = "send"
	if Configured(c, "x").TempFail {
		t.Error("on_error: send defers")
	}
}

// A list without addresses is warned of, unless it says that this is meant.
func TestWarningsOfLists(t *testing.T) {
	for text, warned := range map[string]bool{"# a head\n": true, "# empty\n": false, "bob\n": false} {
		o := options(t)
		o.Domains[0].Config = ringConfig(t, "example.com", text)
		a := start(t, o)
		if got := strings.Join(a.Warnings(), "\n"); strings.Contains(got, "example.com") != warned || strings.Contains(got, "example.org") {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// While lists are read, every message is given the key of one or the next.
func TestAttachDuringReload(t *testing.T) {
	o := options(t)
	o.Authorize = "map:" + write(t, filepath.Join(t.TempDir(), "logins"), "bob@example.com bob@example.com\n")
	list := strings.TrimPrefix(o.Domains[0].Addresses, "file:")
	const lists = 100
	var keys []wire.Key
	for gen := range lists {
		write(t, list, fmt.Sprintf("bob gen=%d\n", gen))
		keys = append(keys, keyOf(t, o, "bob@example.com"))
	}
	write(t, list, "bob\n")
	a := start(t, o)
	s := bobs(t)
	s.Sender = "Bob+x@example.com" // through the comparison of keys
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for range 2 {
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v := a.attachAt(s, midday)
				if v.Note != "" || !slices.ContainsFunc(keys, v.Key.Equal) {
					t.Errorf("reason %q, key is neither", v.Note)
					return
				}
			}
		})
	}
	for gen := range lists {
		write(t, list, fmt.Sprintf("bob gen=%d\n", gen))
		reload(t, a)
	}
	close(stop)
	senders.Wait()
}

// No key and no secret shows in what is printed of the package's values.
func TestNothingShows(t *testing.T) {
	o := options(t)
	a := start(t, o)
	v := a.attachAt(bobs(t), midday)
	text := fmt.Sprintf("%v %+v %#v %v %+v %#v", v, v, v, a, a, a)
	if strings.Contains(text, v.Key.Reveal()) {
		t.Error("a key shows")
	}
	write(t, o.Domains[0].SecretFile, "a AAECAwQFBgc=\n")
	_, err := New(o, nil)
	var line *keyring.LineError
	if !errors.As(err, &line) || line.Line != 1 || strings.Contains(err.Error(), "AAECAwQFBgc") {
		t.Errorf("error %v", err)
	}
}
