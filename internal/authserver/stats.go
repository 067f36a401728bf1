package authserver

import "sync/atomic"

// Stats counts what a Server has done since it was made, for metrics.
type Stats struct {
	Open           int    // connections now
	Connections    uint64 // accepted and served, those that are open included
	Refused        uint64 // connections over the limit
	Evicted        uint64 // connections ended for a new one of another client
	AcceptFailures uint64
	Handshakes     uint64 // TLS handshakes that failed
	Panics         uint64 // connections that ended by a fault of ours

	// Questions by what they were answered.
	Valid, Invalid, TempFail         uint64
	NotServed, Syntax, TooLong, Busy uint64
}

// counts are the Stats as they grow.
type counts struct {
	connections, refused, evicted, acceptFailures, handshakes, panics atomic.Uint64
	valid, invalid, tempFail, notServed, syntax, tooLong, busy        atomic.Uint64
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	c := &s.counts
	return Stats{
		Open:           open,
		Connections:    c.connections.Load(),
		Refused:        c.refused.Load(),
		Evicted:        c.evicted.Load(),
		AcceptFailures: c.acceptFailures.Load(),
		Handshakes:     c.handshakes.Load(),
		Panics:         c.panics.Load(),
		Valid:          c.valid.Load(),
		Invalid:        c.invalid.Load(),
		TempFail:       c.tempFail.Load(),
		NotServed:      c.notServed.Load(),
		Syntax:         c.syntax.Load(),
		TooLong:        c.tooLong.Load(),
		Busy:           c.busy.Load(),
	}
}
