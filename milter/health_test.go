package milter

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/policy"
)

func TestSelfCheck(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.mustSend(r.connect(), sent{from: "alice@a.test"})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.srv.SelfCheck(ctx); err != nil {
		t.Errorf("healthy: %v", err)
	}
	if got := r.srv.Status(); !strings.Contains(got, "1 messages answered") {
		t.Errorf("status %q", got)
	}
	r.waitFor("the connections", func() bool {
		if r.srv.Connections() >= testLimits.Connections {
			return true
		}
		r.dialRaw()
		return false
	})
	if err := r.srv.SelfCheck(ctx); err != nil {
		t.Errorf("at the limit of connections: %v", err)
	}
	// Stuck: a goroutine holds what every connection needs, and never lets go.
	r.srv.mu.Lock()
	stuck, cancelStuck := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancelStuck()
	checked := make(chan error, 1)
	listeners := r.srv.listeners
	go func() { checked <- (&Server{listeners: listeners}).SelfCheck(stuck) }()
	if err := <-checked; err == nil {
		t.Error("stuck, and nothing shows it")
	}
	r.srv.mu.Unlock()
}
