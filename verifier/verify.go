package verifier

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/internal/wire"
)

// MaxUnreachableHosts is how many AS names of one domain may lead to no address that we
// may dial (docs/protocol.md section 4.2). Further names are not looked up: they may be in
// the zone of somebody who has nothing to do with the domain (compare RFC 7208 section
// 4.6.4).
const MaxUnreachableHosts = 2

// cancelled is the Result for a caller that stops waiting, and after Close.
var cancelled = Result{Status: TempError, Reason: ReasonCancelled}

// Verify says whether q.Key is q.Address's AuthKey, or what its absence means. It takes no
// longer than Options.Timeout, and ends with ctx.
//
// A valid key is remembered for the time that the AS says, and answered from the cache
// meanwhile. Calls about the same pair at the same time are one question to the AS.
func (v *Verifier) Verify(ctx context.Context, q Query) Result {
	if q.Address.IsZero() {
		return Result{Status: None, Reason: ReasonBadAddress}
	}
	if q.Address.IsDomain() {
		q.Key = Key{} // it can have none
	}
	if q.Key.IsZero() || q.Key.Bad() {
		return v.verifyWithoutKey(ctx, q)
	}
	d := v.cache.digest(q.Address, q.Key)
	if r, ok := v.fromCache(q, d); ok {
		return r
	}
	if !v.life.beginCall() {
		return cancelled
	}
	defer v.life.calls.Done()
	return v.awaitShared(ctx, q, d)
}

// Cached answers a Query from the key cache alone, at once and without the network. ok is
// false where the key is not in the cache, which does not mean that it is invalid.
func (v *Verifier) Cached(q Query) (r Result, ok bool) {
	if q.Address.IsZero() || q.Address.IsDomain() || q.Key.IsZero() || q.Key.Bad() {
		return Result{}, false
	}
	return v.fromCache(q, v.cache.digest(q.Address, q.Key))
}

func (v *Verifier) fromCache(q Query, d digest) (r Result, ok bool) {
	ttl, ok := v.cache.valid(q.Address, d)
	if !ok {
		return Result{}, false
	}
	return Result{Status: Pass, Cached: true, TTL: ttl}, true
}

// Prefetch starts to look up the domain of an address whose message has just begun,
// unless a key of the address is in the cache. It never blocks, and does nothing while 256
// of these lookups are under way.
func (v *Verifier) Prefetch(address Address) {
	if address.IsZero() || v.cache.has(address) {
		return
	}
	domain := address.Domain()
	if v.records.usable(domain) {
		return
	}
	select {
	case v.prefetches <- struct{}{}:
	default:
		return
	}
	started := v.life.spawn(func() {
		defer func() { <-v.prefetches }()
		v.lookups.Do(domain, func() (any, error) { return v.refresh(domain) })
	})
	if !started {
		<-v.prefetches
	}
}

// Ask puts a Query to one server, without asking DNS about the domain of the address and
// without the cache. It is for the server's administrator, who wants to see it answer. The
// rules about what may be dialled hold, and so does Options.Timeout. Without a key the
// Result is NoKey, with a bad one Fail, and the server is not asked.
func (v *Verifier) Ask(ctx context.Context, server Server, q Query) Result {
	switch {
	case q.Address.IsZero(), q.Address.IsDomain():
		return Result{Status: None, Reason: ReasonBadAddress}
	case q.Key.Bad():
		return Result{Status: Fail, Reason: ReasonBadKey}
	case q.Key.IsZero():
		return Result{Status: NoKey}
	case !v.life.beginCall():
		return cancelled
	}
	defer v.life.calls.Done()
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	var r Result
	v.askServers(ctx, q, []Server{server}, &r)
	return r
}

// verifyWithoutKey is Verify for a message without a key, or with one that no AS could
// have issued: only DNS is asked.
func (v *Verifier) verifyWithoutKey(ctx context.Context, q Query) Result {
	if !v.life.beginCall() {
		return cancelled
	}
	defer v.life.calls.Done()
	limited, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	k, r, ok := v.lookUpDomain(limited, q)
	if ctx.Err() != nil && !ok && r.Status == TempError {
		r.Reason = ReasonCancelled
		return r
	}
	switch {
	case q.Key.Bad() && (ok || r.Status == PermError): // published is published, usable or not
		r.Status, r.Reason = Fail, ReasonBadKey
	case !ok:
	case k.set.Required:
		r.Status, r.Reason = Fail, ReasonRequired
	default:
		r.Status = NoKey
	}
	return r
}

// awaitShared waits for the verification of the pair, and starts it unless one is under
// way. A verification has a context of its own: if the caller that started it stops
// waiting, the others must still get their result.
func (v *Verifier) awaitShared(ctx context.Context, q Query, d digest) Result {
	select {
	case r := <-v.verifications.DoChan(string(d[:]), func() (any, error) { return v.verifyOnce(q, d), nil }):
		return r.Val.(Result)
	case <-ctx.Done():
		return cancelled
	}
}

// verifyOnce asks DNS and the servers about one pair, for all who wait for it.
func (v *Verifier) verifyOnce(q Query, d digest) (r Result) {
	if !v.life.beginTask() {
		return cancelled
	}
	defer v.life.tasks.Done()
	select {
	case v.underway <- struct{}{}:
		defer func() { <-v.underway }()
	default:
		return Result{Status: TempError, Reason: ReasonOverload, Required: v.records.required(q.Address.Domain())}
	}
	var err error
	defer func() {
		if err != nil {
			r = Result{Status: TempError, Reason: reasonOf(err), Required: r.Required}
		}
	}()
	defer v.life.recoverAs(&err)
	ctx, cancel := context.WithTimeout(v.life.ctx, v.timeout)
	defer cancel()
	k, r, ok := v.lookUpDomain(ctx, q)
	if !ok {
		return r
	}
	v.askServers(ctx, q, k.set.Order(rand.Shuffle), &r)
	if r.Status == Pass {
		v.cache.put(q.Address, d, r.TTL)
	}
	return r
}

// lookUpDomain finds out what DNS says of the domain. ok: it has servers to ask.
// Otherwise r is the result, except for a key that is bad anyway.
func (v *Verifier) lookUpDomain(ctx context.Context, q Query) (k knowledge, r Result, ok bool) {
	began := time.Now()
	domain := q.Address.Domain()
	k, err := v.knowledgeOf(ctx, domain)
	r.DNSTime = time.Since(began)
	if err != nil {
		v.log.Debug("no records", "domain", domain, "err", oplog.Cut(err.Error(), maxLogError))
		r.Status, r.Reason = TempError, reasonOf(err)
		return k, r, false
	}
	r.Required, r.Stale, r.AD = k.set.Required, k.stale, k.ad
	switch {
	case !k.published:
		r.Status, r.Reason = None, ReasonNoAS
	case len(k.set.Records) == 0:
		r.Status, r.Reason = PermError, ReasonASRecord
	default:
		ok = true
	}
	return k, r, ok
}

// askServers asks one server after the other until one gives a verdict. When none
// does, any temporary cause makes it a temperror (docs/protocol.md section 3).
func (v *Verifier) askServers(ctx context.Context, q Query, servers []Server, r *Result) {
	began := time.Now()
	defer func() { r.ASTime = time.Since(began) }()
	r.Status = PermError
	var unreachable []string
	for _, server := range servers {
		if len(unreachable) == MaxUnreachableHosts && !server.IsAddress() && !slices.Contains(unreachable, server.Host) {
			continue
		}
		name := net.JoinHostPort(server.Host, strconv.Itoa(int(server.Port)))
		reply, err := v.pool.verify(ctx, server, q.Address, q.Key)
		if err == nil {
			err = noVerdict(reply)
		}
		if err == nil {
			r.Status, r.Reason, r.Server = Fail, ReasonInvalidKey, name
			if reply.Verdict == wire.ValidKey {
				r.Status, r.Reason, r.TTL = Pass, "", v.ttl(reply)
			}
			return
		}
		v.log.Debug("no verdict", "as", name, "err", oplog.Cut(err.Error(), maxLogError))
		if unreachableHost(err) && !slices.Contains(unreachable, server.Host) {
			unreachable = append(unreachable, server.Host)
		}
		switch reason := reasonOf(err); {
		case !reason.permanent():
			r.Status, r.Reason, r.Server = TempError, reason, name
		case r.Status == PermError:
			r.Reason, r.Server = reason, name
		}
		if ctx.Err() != nil { // the rest were not asked, which may pass
			if r.Status == PermError {
				r.Status, r.Reason = TempError, ReasonASTimeout
			}
			return
		}
	}
}

// noVerdict says why an answer is no verdict; nil if it is one.
func noVerdict(reply wire.Reply) error {
	switch {
	case reply.Verdict == wire.ValidKey, reply.Verdict == wire.InvalidKey:
		return nil
	case reply.Code == wire.CodeNotServed:
		return failuref(ReasonASNotServed, "the server does not serve the domain")
	case reply.Code == wire.CodeSyntax, reply.Code == wire.CodeTooLong:
		return failuref(ReasonASSyntax, "the server cannot read the question: ERROR %s", codeName(reply.Code))
	case reply.Code == wire.CodeBusy:
		return failuref(ReasonASBusy, "the server is busy")
	}
	return failuref(ReasonASTempFail, "the server cannot answer now")
}

// codeName is the code of an ERROR line for a log. The AS was told a key and may say
// it, or a part of it, in a code or text: neither is repeated.
func codeName(c wire.Code) string {
	if c.Known() {
		return string(c)
	}
	return "with an unknown code"
}

// maxLogError bounds the text of an error in the log: part of it came from outside.
const maxLogError = 300
