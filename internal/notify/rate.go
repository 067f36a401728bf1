package notify

import "time"

// A Rate is a number of events in a span of time: so many at once at most, and so
// many in each span from then on.
type Rate struct {
	Count int // at least 1
	Per   time.Duration
}

// Rates bounds what is sent.
type Rates struct {
	PerSender    Rate // DSNs to one sender
	PerRecipient Rate // notices to one recipient
	Global       Rate // both, in all
}

// maxRated bounds the addresses whose rates are remembered. The global rate keeps
// them below that, unless it is set very high; then nobody new is sent anything
// until others are forgotten.
const maxRated = 1 << 16

// sweepEvery bounds how often the memory of rates is searched for what can be
// forgotten.
const sweepEvery = time.Second

// A want asks for one event of a rate.
type want struct {
	key  digest
	rate Rate
	why  Suppression // if there is none left
}

// limiter is the generic cell rate algorithm: for each key the time at which its
// bucket will be full again, which is all that there is to know. Its owner locks.
type limiter struct {
	full  map[digest]time.Time
	swept time.Time
}

// room says why not all of wants can be had, if so.
func (l *limiter) room(now time.Time, wants []want) Suppression {
	for _, w := range wants {
		full, known := l.full[w.key]
		if known && full.Sub(now) > w.rate.Per-w.interval() {
			return w.why
		}
		if !known && len(l.full) >= maxRated && !l.sweep(now) {
			return w.why
		}
	}
	return Allowed
}

// take takes all of wants, or nothing and says why.
func (l *limiter) take(now time.Time, wants []want) Suppression {
	if why := l.room(now, wants); why != Allowed {
		return why
	}
	for _, w := range wants {
		full := l.full[w.key]
		if full.Before(now) {
			full = now
		}
		l.full[w.key] = full.Add(w.interval())
	}
	return Allowed
}

// giveBack undoes a take of what was not sent in the end.
func (l *limiter) giveBack(wants []want) {
	for _, w := range wants {
		if full, known := l.full[w.key]; known {
			l.full[w.key] = full.Add(-w.interval())
		}
	}
}

// sweep forgets the keys whose buckets are full and reports whether there is room.
func (l *limiter) sweep(now time.Time) bool {
	if now.Sub(l.swept) < sweepEvery {
		return false
	}
	l.swept = now
	for key, full := range l.full {
		if !full.After(now) {
			delete(l.full, key)
		}
	}
	return len(l.full) < maxRated
}

func (w want) interval() time.Duration { return w.rate.Per / time.Duration(w.rate.Count) }
