package notify

import (
	"time"

	"golang.org/x/time/rate"
)

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

// maxRated bounds the addresses whose rates are remembered. The global rate keeps their
// number below that, unless it is set very high; then nothing is sent to further addresses
// until others are forgotten.
const maxRated = 1 << 16

// sweepEvery bounds how often the memory of rates is searched for what can be
// forgotten.
const sweepEvery = time.Second

// A token is what one event needs of a rate.
type token struct {
	key  digest
	rate Rate
	why  Suppression // of the event, where there is no token left
}

// A limiter has a bucket of tokens for each key. Its owner locks.
type limiter struct {
	buckets map[digest]*rate.Limiter
	swept   time.Time
}

// exhausted says why not all of tokens can be had, if so.
func (l *limiter) exhausted(now time.Time, tokens []token) Suppression {
	for _, t := range tokens {
		bucket, known := l.buckets[t.key]
		switch {
		case !known && len(l.buckets) >= maxRated && !l.sweep(now):
			return t.why
		case known && t.rate.apply(bucket, now).TokensAt(now) < 1:
			return t.why
		}
	}
	return Allowed
}

// take takes all of tokens, or nothing and says why.
func (l *limiter) take(now time.Time, tokens []token) Suppression {
	if why := l.exhausted(now, tokens); why != Allowed {
		return why
	}
	for _, t := range tokens {
		bucket, known := l.buckets[t.key]
		if !known {
			bucket = rate.NewLimiter(t.rate.limit(), t.rate.Count)
			l.buckets[t.key] = bucket
		}
		bucket.AllowN(now, 1)
	}
	return Allowed
}

// giveBack undoes take for what was not sent in the end. A rate.Reservation could not be
// used: it gives nothing back after its time, which here is at once.
func (l *limiter) giveBack(now time.Time, tokens []token) {
	for _, t := range tokens {
		if bucket, known := l.buckets[t.key]; known {
			bucket.AllowN(now, -1)
		}
	}
}

// sweep forgets the keys whose buckets are full and reports whether another one may be
// remembered.
func (l *limiter) sweep(now time.Time) bool {
	if now.Sub(l.swept) < sweepEvery {
		return false
	}
	l.swept = now
	for key, bucket := range l.buckets {
		if bucket.TokensAt(now) >= float64(bucket.Burst()) {
			delete(l.buckets, key)
		}
	}
	return len(l.buckets) < maxRated
}

func (r Rate) limit() rate.Limit { return rate.Limit(float64(r.Count) / r.Per.Seconds()) }

// apply sets the rate of a bucket to that of the configuration in force, which may have
// changed since the bucket was made.
func (r Rate) apply(bucket *rate.Limiter, now time.Time) *rate.Limiter {
	if bucket.Limit() != r.limit() {
		bucket.SetLimitAt(now, r.limit())
	}
	if bucket.Burst() != r.Count {
		bucket.SetBurstAt(now, r.Count)
	}
	return bucket
}
