package milter

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
)

// TestGreatHeaders sends what no honest client does, and looks at what it costs.
func TestGreatHeaders(t *testing.T) {
	tests := []struct {
		name   string
		fields []field
		result string
	}{
		{"100000 fields, the key last",
			append(slices.Repeat([]field{{"X-Filler", "x"}}, 100_000), field{"X-Auth-Key", "good"}), "pass"},
		{"keys of 64 KiB", slices.Repeat([]field{{"X-Auth-Key", strings.Repeat("k", 64<<10-100)}}, 200), "fail"},
		{"a folded key of 60000 lines", []field{{"X-Auth-Key", strings.Repeat("\n ", 30_000) + "good"}}, "pass"},
		{"64 KiB of nested comments", []field{{"X-Auth-Key", "good"}, {"Authentication-Results", "mx.test;" + strings.Repeat("(", 60_000)}}, "pass"},
	}
	r := newRig(t, defaultSettings(), policy.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := send(r.connect(), sent{from: "alice@a.test", fields: tt.fields})
			if err != nil {
				t.Fatal(err)
			}
			if got.action != gomilter.ActionAccept || hasField(got.fields, "X-Auth-Key") {
				t.Errorf("%v %q, want accept without a key", got.action, got.reply)
			}
			if first := got.fields[0]; !strings.Contains(first.value, "x-authkey="+tt.result) {
				t.Errorf("%s: %q, want %s", first.name, first.value, tt.result)
			}
		})
	}
}

// TestManyRecipients: 50 000 are taken, and cost what their addresses cost.
func TestManyRecipients(t *testing.T) {
	settings := defaultSettings()
	r := newRig(t, settings, policy.Options{})
	r.srv.Swap(&Engine{Settings: settings, Limits: Limits{Connections: 20, IdleTimeout: testLimits.IdleTimeout, Recipients: 50_000},
		Verifier: r.fake, Policy: policy.New(policy.Options{})})
	in := sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "good"}}}
	for i := range 50_000 {
		in.rcpts = append(in.rcpts, fmt.Sprintf("recipient-%d@rcpt.test", i))
	}
	var before, after runtime.MemStats
	s := r.connect()
	runtime.GC()
	runtime.ReadMemStats(&before)
	got := r.mustSend(s, in)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got.action != gomilter.ActionAccept {
		t.Errorf("%v %q", got.action, got.reply)
	}
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 4<<20 {
		t.Errorf("%d bytes are kept after the message", kept)
	}
	in.rcpts = append(in.rcpts, "one-more@rcpt.test")
	if got := r.mustSend(s, in); got.code != 451 {
		t.Errorf("50 001 recipients: %d %q, want 451", got.code, got.reply)
	}
}
