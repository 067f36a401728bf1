package verifier

import (
	"context"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// Ask is Verify of one server, whatever DNS says about the domain of the address
// and whatever the cache knows: it is for whoever runs that server and wants to see
// it answer. The rules about what may be dialled hold.
func (v *Verifier) Ask(ctx context.Context, server wire.Server, q Query) Result {
	switch {
	case q.Address.IsZero(), q.Address.IsDomain():
		return Result{Status: None, Reason: ReasonBadAddress}
	case q.Key.Bad():
		return Result{Status: Fail, Reason: ReasonBadKey}
	case q.Key.IsZero():
		return Result{Status: NoKey}
	case !v.life.question():
		return Result{Status: TempError, Reason: ReasonCancelled}
	}
	defer v.life.answered()
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	st := standing{domainState: &domainState{set: wire.Set{Records: []wire.Record{{Server: server}}}}}
	var r Result
	began := time.Now()
	v.askServers(ctx, q, st, &r)
	r.ASTime = time.Since(began)
	return r
}
