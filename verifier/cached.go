package verifier

// Cached answers a Query from the key cache alone, at once and asking nobody. ok
// is false where the cache does not know the key to be valid, which says nothing
// about it.
func (v *Verifier) Cached(q Query) (r Result, ok bool) {
	if q.Address.IsZero() || q.Address.IsDomain() || q.Key.IsZero() || q.Key.Bad() {
		return Result{}, false
	}
	return v.cached(q, v.cache.digest(q.Address, q.Key))
}

func (v *Verifier) cached(q Query, d digest) (r Result, ok bool) {
	ttl, ok := v.cache.pass(q.Address, d)
	if !ok {
		return Result{}, false
	}
	v.stats.cacheHits.Add(1)
	return Result{Status: Pass, Cached: true, TTL: ttl}, true
}
