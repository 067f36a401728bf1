package stubdns

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseResolvConf(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "[127.0.0.1:53]"},
		{"search example.com\n# nameserver 192.0.2.1\noptions timeout:1\n", "[127.0.0.1:53]"},
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1 \n\tnameserver fe80::1%eth0", "[192.0.2.1:53 [2001:db8::1]:53 [fe80::1%eth0]:53]"},
		{"nameserver nonsense\nnameserver\nnameserver 192.0.2.1", "[192.0.2.1:53]"},
		{strings.Repeat("nameserver 192.0.2.1\n", 5), "[192.0.2.1:53 192.0.2.1:53 192.0.2.1:53]"},
	} {
		if got := fmt.Sprint(parseResolvConf(tt.text)); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

// TestResolvConf: the file is read again when it changes, and a file that is gone
// changes nothing.
func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		next := path + ".next" // as resolvconf(8) does it
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		servers := FromResolvConf(path, slog.New(slog.DiscardHandler))
		check := func(when, want string) {
			t.Helper()
			if got := fmt.Sprint(servers()); got != want {
				t.Errorf("%s: %s, want %s", when, got, want)
			}
		}
		check("no file", "[127.0.0.1:53]")
		write("nameserver 192.0.2.1\n")
		time.Sleep(resolvConfInterval)
		check("written", "[192.0.2.1:53]")
		write("nameserver 192.0.2.2\n")
		check("changed just now", "[192.0.2.1:53]")
		time.Sleep(resolvConfInterval)
		check("changed", "[192.0.2.2:53]")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(resolvConfInterval)
		check("removed", "[192.0.2.2:53]")
	})
}
