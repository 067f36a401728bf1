package milter

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/policy"
)

// Bounds of what came from outside in a log line.
const (
	maxLogValue   = 256
	maxLogActions = 2048
)

// logMessage writes the one line that a message gets.
func (s *session) logMessage(msg *message, out *outcome) {
	action, reason := out.plan.Action, out.envelope.Reason
	if !out.own.IsZero() {
		action, reason = out.own.action(), out.own.reason
	}
	attrs := append(messageAttrs(msg, s.attrs[:0]),
		slog.String("result", string(out.envelope.Status)),
		slog.String("reason", string(reason)),
		slog.String("as", oplog.Cut(out.envelope.Server, maxLogValue)),
		slog.Bool("cached", out.envelope.Cached))
	if msg.engine.Settings.From != FromOff && out.from.Status != "" {
		attrs = append(attrs, slog.String("from_result", string(out.from.Status)))
		if out.from.address != msg.address {
			attrs = appendFrom(attrs, out.from)
		}
	}
	attrs = append(attrs, slog.String("action", action.String()))
	if out.own.IsZero() {
		attrs = appendPlan(attrs, &out.plan)
	}
	if notes := notesOf(out); notes != "" {
		attrs = append(attrs, slog.String("note", notes))
	}
	removed := 0
	if out.delivers() && out.removesKeys(msg) {
		removed = msg.counts[keyKind]
	}
	now := time.Now()
	attrs = append(attrs,
		slog.Int("rcpts", len(msg.recipients)),
		slog.Int("removed", removed),
		milliseconds("dns_ms", out.envelope.DNSTime),
		milliseconds("as_ms", out.envelope.ASTime),
		milliseconds("total_ms", now.Sub(msg.began)))
	s.writeLine(now, attrs)
	if out.ends() {
		s.settle()
	}
	if out.deliverErr != nil {
		s.logFailure("notices could not be handed over, the message is deferred", msg, out.deliverErr)
	}
	if out.prefsErr != nil {
		s.logFailure("preferences could not be looked up", msg, out.prefsErr)
	}
}

func (s *session) logFailure(what string, msg *message, err error) {
	s.srv.log.Error(what, "qid", oplog.Cut(msg.queueID, maxLogValue), "error", oplog.Cut(err.Error(), maxLogValue))
}

// appendFrom says why the From field has its result, and for which address, where that
// is not the envelope sender's.
func appendFrom(attrs []slog.Attr, from fromResult) []slog.Attr {
	if from.Reason != "" {
		attrs = append(attrs, slog.String("from_reason", string(from.Reason)))
	}
	if !from.address.IsZero() {
		attrs = append(attrs, slog.String("header_from", oplog.Cut(from.address.String(), maxLogValue)))
	}
	return attrs
}

// appendPlan says what each recipient gets where they differ, what test mode would
// have done, and who decided.
func appendPlan(attrs []slog.Attr, plan *policy.Plan) []slog.Attr {
	test := plan.Would != policy.Unset
	if plan.Differ() {
		list := recipientActions(plan.Recipients, test)
		if test {
			return append(attrs, slog.String("would", list), slog.String("by", string(plan.By)))
		}
		attrs = append(attrs, slog.String("actions", list))
	}
	if test {
		attrs = append(attrs, slog.String("would", plan.Would.String()))
	}
	return append(attrs, slog.String("by", string(plan.By)))
}

func recipientActions(recipients []policy.RecipientPlan, test bool) string {
	var b strings.Builder
	for _, r := range recipients {
		action := r.Action
		if test {
			action = r.Would
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		if b.Len() > maxLogActions {
			b.WriteString("…")
			break
		}
		b.WriteString(oplog.Cut(esmtp.SafeAddress(r.Address), maxLogValue) + "=" + action.String())
	}
	return b.String()
}

// notesOf returns the values of note=.
func notesOf(out *outcome) string {
	switch {
	case !out.attachment.Key.IsZero():
		return string(noteKeyAttached)
	case out.attachment.Note != "":
		return out.attachment.Note
	}
	return out.plan.Notes.String()
}

// logAborted writes the line of a message that did not reach its end.
func (s *session) logAborted(msg *message) {
	now := time.Now()
	attrs := messageAttrs(msg, s.attrs[:0])
	if msg.isProbe() {
		attrs = append(attrs, slog.String("probe", "doctor"))
	}
	s.writeLine(now, append(attrs,
		slog.String("action", "aborted"),
		slog.Int("rcpts", len(msg.recipients)),
		milliseconds("total_ms", now.Sub(msg.began))))
}

// writeLine writes the line of a message. Logger.LogAttrs would find out each time
// where it was called from.
func (s *session) writeLine(now time.Time, attrs []slog.Attr) {
	s.attrs = attrs
	handler := s.srv.log.Handler()
	if !handler.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	record := slog.NewRecord(now, slog.LevelInfo, "message", 0)
	record.AddAttrs(slog.Attr{Value: slog.GroupValue(attrs...)}) // inline, and not copied
	_ = handler.Handle(context.Background(), record)             // an error cannot be logged
}

// ends reports whether a recipient will not get the message, and the client will not try
// again: then the log line is all that is left of it.
func (o *outcome) ends() bool {
	if reply := o.reply(); !reply.IsZero() {
		return reply.Code >= 500
	}
	return o.discards() || slices.ContainsFunc(o.plan.Recipients, func(r policy.RecipientPlan) bool {
		return r.Disposition == policy.Delete || r.DSN || r.Notice
	})
}

// settle has the line written before the MTA is answered. The program's handler would
// otherwise wait for more lines, and write them together.
func (s *session) settle() {
	if h, ok := s.srv.log.Handler().(interface{ Settle() }); ok {
		h.Settle()
	}
}

func messageAttrs(msg *message, attrs []slog.Attr) []slog.Attr {
	return append(attrs,
		slog.String("qid", oplog.Cut(msg.queueID, maxLogValue)),
		slog.String("client", oplog.Cut(msg.client, maxLogValue)),
		slog.String("from", oplog.Cut(esmtp.SafeAddress(msg.sender), maxLogValue)))
}

// milliseconds is a decimal number of them, to the microsecond.
func milliseconds(name string, d time.Duration) slog.Attr {
	return slog.Float64(name, float64(d.Microseconds())/1000)
}
