package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/attach"
	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/notify"
	"github.com/authkey/authkey/internal/program"
)

// refusesOnly are keys that change which configurations are refused, and nothing else.
// They have tests of their own.
var refusesOnly = map[string]bool{"attach.allow_inet": true}

// otherValues are values for keys for which none can be made of the type and default.
func otherValues(t *testing.T, dir string) map[string]string {
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	templates := filepath.Join(dir, "templates")
	if err := os.Mkdir(templates, 0o700); err != nil {
		t.Fatal(err)
	}
	write("templates/notice.en.txt", "Subject: held\n\nA message was held.\n")
	domain := "[{domain: a.test, source: 'secret:" + write("secret", "a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n") + "', addresses: any}]"
	return map[string]string{
		"listen":                   "['unix:" + dir + "/other.sock']",
		"socket.mode":              "'0600'",
		"socket.group":             "'7'",
		"dns.servers":              "['192.0.2.53:53']",
		"verify.ca_file":           write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		"policy.rules":             "[{recipient: a@b.test, fail: reject}]",
		"from.trusted":             "[{mail_from: list.test}]",
		"preferences.source":       "'file:" + write("prefs.yaml", "- {recipient: a@b.test, fail: reject}\n") + "'",
		"notify.state_dir":         dir,
		"preferences.query":        "SELECT 1",
		"metrics.listen":           "'127.0.0.1:1'",
		"control.socket":           "/c",
		"mark.header":              "X-Other",
		"mark.readdress":           "'{local}+spam@{domain}'",
		"quarantine.mailbox":       "spam@b.test",
		"notify.smtp":              "127.0.0.1:2525",
		"notify.template_dir":      templates,
		"attach.domains":           domain,
		"attach.authorize":         "'map:" + write("map", "a@a.test a\n") + "'",
		"attach.networks":          "[192.0.2.0/24]",
		"submission.authenticated": "false",
	}
}

// TestActedKeysAct sets each key to something else, and looks whether anything that the
// milter is made of is another: so it must be for those that are marked as implemented,
// and for no others.
func TestActedKeysAct(t *testing.T) {
	dir := t.TempDir()
	others := otherValues(t, dir)
	base := map[string]string{"listen": "['unix:" + dir + "/one.sock']", "attach.domains": others["attach.domains"], "from.check": "enforce",
		"preferences.source": others["preferences.source"]}
	for _, d := range config.Describe() {
		if strings.Contains(d.Key, "[]") || refusesOnly[d.Key] {
			continue
		}
		other, ok := others[d.Key]
		if !ok {
			other = otherThan(d)
		}
		with := map[string]string{d.Key: other}
		without := map[string]string{}
		for key, value := range base {
			if key != d.Key {
				with[key], without[key] = value, value
			} else if key == "listen" { // the others are compared with their defaults
				without[key] = value
			}
		}
		before := observe(t, dir, without)
		if again := observe(t, dir, without); again != before {
			t.Fatalf("%s: what is observed is not the configuration's alone", d.Key)
		}
		if changed := observe(t, dir, with) != before; changed != d.Implemented {
			t.Errorf("%s: %s: implemented is %v, and something is another is %v", d.Key, other, d.Implemented, changed)
		}
	}
}

// otherThan makes a right value that is not the default.
func otherThan(d config.KeyDoc) string {
	switch {
	case strings.Contains(d.Type, "|"):
		for word := range strings.SplitSeq(d.Type, "|") {
			if word != d.Default {
				return word
			}
		}
	case d.Type == "boolean":
		return map[string]string{"true": "false", "false": "true"}[d.Default]
	}
	for kind, value := range map[string]string{
		"action": "discard", "duration": "777ms", "integer": "777", "rate": "7/7h", "list of ports": "[25]", "list of networks": "[203.0.113.0/24]",
		"list of authserv-ids": "[other.test]", "list of id/method": "[other.test/dkim]", "list of domains": "[other.test]", "list of names": "[OTHER]", "list of actions": "[discard]",
		"authserv-id": "other.test", "reply text": "other", "text": "other", "header value": "other",
	} {
		if d.Type == kind {
			return value
		}
	}
	panic(d.Key + ": no other value of type " + d.Type + " is known")
}

// observe describes everything that the program makes of a configuration.
func observe(t *testing.T, dir string, keys map[string]string) string {
	t.Helper()
	path := filepath.Join(dir, "milter.yaml")
	text := flow(keys)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(path, nil)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	c := loaded.Config
	var b strings.Builder
	note := func(what any, err error) {
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		dump(&b, reflect.ValueOf(what), 0)
		b.WriteByte('\n')
	}
	p, faults := assemble(loaded, parts{})
	if len(faults) > 0 {
		note(nil, faults)
	}
	note(p.verifier.Roots != nil, nil)
	p.verifier.Roots = nil
	note(p.verifier, nil)
	p.attacher = nil // what it remembers is not the configuration's
	note(attach.Configured(c.Attach, "test"), nil)
	note(p.engine(), nil)
	note(stateDir(c.Notify), nil)

	// What the log looks like, and at which level.
	var log bytes.Buffer
	logger, level, flush := program.NewLogger(&log, c.Log)
	level.Set(c.Log.Level)
	note(level.Level().String(), nil)
	logger.LogAttrs(context.Background(), slog.LevelInfo, "line")
	flush()
	note(log.Len() > 0 && log.Bytes()[0] == '{', nil)
	note(log.Len() > 0, nil)

	// The notifier, but for what it remembers.
	ledger, err := notify.OpenLedger("", slog.New(slog.DiscardHandler))
	note(nil, err)
	defer ledger.Close()
	told, faults := notifier(loaded, ledger, slog.New(slog.DiscardHandler))
	if len(faults) > 0 {
		note(nil, faults)
	}
	note(told, nil)

	// The cache, by what a service makes.
	d := &service{}
	d.verify(c, p.verifier)
	note(reflect.ValueOf(d.cache).Elem().FieldByName("keys").Elem().FieldByName("max").Int(), nil)
	d.verifier.drop()
	d.closing.Wait()

	// The sockets.
	listeners, err := listen(loaded)
	note(nil, err)
	for _, ln := range listeners {
		info, err := os.Stat(ln.Addr().String())
		note(nil, err)
		group := info.Sys().(*syscall.Stat_t).Gid
		note(fmt.Sprint(ln.Addr(), info.Mode(), group), program.CloseAll([]net.Listener{ln}))
	}
	return b.String()
}

// flow writes dotted keys as YAML.
func flow(keys map[string]string) string {
	sections := map[string]map[string]string{}
	var lines []string
	for key, value := range keys {
		section, rest, nested := strings.Cut(key, ".")
		if !nested {
			lines = append(lines, key+": "+value)
			continue
		}
		if sections[section] == nil {
			sections[section] = map[string]string{}
		}
		sections[section][rest] = value
	}
	for section, inner := range sections {
		text := strings.ReplaceAll(strings.TrimSuffix(flow(inner), "\n"), "\n", ", ")
		lines = append(lines, section+": {"+text+"}")
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// dump writes a value with everything in it, but for what is not the configuration's:
// functions, locks, logs, memories, what files were read.
func dump(b *strings.Builder, v reflect.Value, depth int) {
	const deepest = 12
	if !v.IsValid() || depth > deepest {
		return
	}
	switch pkg := v.Type().PkgPath(); {
	case pkg == "log/slog" || pkg == "os" || strings.HasSuffix(pkg, "/diskfile") || pkg == "sync" || pkg == "sync/atomic" || v.Type() == reflect.TypeFor[notify.Ledger]():
		return
	case v.Type() == reflect.TypeFor[netip.Prefix]() && v.CanInterface():
		fmt.Fprint(b, v.Interface(), " ")
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		dump(b, v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			b.WriteString(v.Type().Field(i).Name + ":")
			dump(b, v.Field(i), depth+1)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			dump(b, v.Index(i), depth+1)
		}
		b.WriteByte(';')
	case reflect.Map:
		var entries []string
		for _, key := range v.MapKeys() {
			var entry strings.Builder
			dump(&entry, key, depth+1)
			dump(&entry, v.MapIndex(key), depth+1)
			entries = append(entries, entry.String())
		}
		slices.Sort(entries)
		b.WriteString(strings.Join(entries, ";"))
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
	default:
		fmt.Fprint(b, v, " ")
	}
}
