package milter

import (
	"context"
	"log/slog"
	"time"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
)

// maxLogValue bounds every value of a log line that came from outside.
const maxLogValue = 256

// logMessage writes the one line that a message gets.
func (s *session) logMessage(msg *message, m gomilter.Modifier, out outcome) {
	action, reason := out.plan.Action.String(), string(out.result.Reason)
	switch out.own {
	case policy.Reply{}:
	case policy.FilterError:
		action = policy.TempFail.String()
		reason = "filter-error"
		if msg.uncounted || s.srv.ctx.Err() != nil {
			reason = "shutdown"
		}
	case policy.TooManyRecipients:
		action, reason = policy.TempFail.String(), "too-many-recipients"
	case policy.TooManyFields:
		action, reason = policy.Reject.String(), "too-many-fields"
	}
	attrs := append(s.messageAttrs(msg, m),
		slog.String("result", string(out.result.Status)),
		slog.String("reason", reason),
		slog.String("as", cut(out.result.Server, maxLogValue)),
		slog.Bool("cached", out.result.Cached),
		slog.String("action", action))
	if out.own.IsZero() {
		if out.plan.Would != policy.Unset {
			attrs = append(attrs, slog.String("would", out.plan.Would.String()))
		}
		attrs = append(attrs, slog.String("by", string(out.plan.By)))
	}
	if out.plan.Notes != 0 {
		attrs = append(attrs, slog.String("note", out.plan.Notes.String()))
	}
	removed := 0
	if out.delivers() && !msg.keepsKey() {
		removed = msg.counts.key
	}
	s.srv.log.LogAttrs(context.Background(), slog.LevelInfo, "message", append(attrs,
		slog.Int("rcpts", len(msg.recipients)),
		slog.Int("removed", removed),
		milliseconds("dns_ms", out.result.DNSTime),
		milliseconds("as_ms", out.result.ASTime),
		milliseconds("total_ms", time.Since(msg.began)))...)
}

// logAborted writes the line of a message that did not reach its end. m may be
// nil where the connection is already another client's.
func (s *session) logAborted(msg *message, m gomilter.Modifier) {
	s.srv.log.LogAttrs(context.Background(), slog.LevelInfo, "message", append(s.messageAttrs(msg, m),
		slog.String("action", "aborted"),
		slog.Int("rcpts", len(msg.recipients)),
		milliseconds("total_ms", time.Since(msg.began)))...)
}

func (s *session) messageAttrs(msg *message, m gomilter.Modifier) []slog.Attr {
	qid := ""
	if m != nil {
		qid = m.Get(gomilter.MacroQueueId)
	}
	return append(make([]slog.Attr, 0, 18),
		slog.String("qid", cut(qid, maxLogValue)),
		slog.String("client", cut(s.client, maxLogValue)),
		slog.String("from", cut(msg.sender, maxLogValue)))
}

// milliseconds is a decimal number of them, to the microsecond.
func milliseconds(name string, d time.Duration) slog.Attr {
	return slog.Float64(name, float64(d.Microseconds())/1000)
}
