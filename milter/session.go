package milter

import (
	"fmt"
	"log/slog"
	"net/netip"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/policy"
)

// A session is the library's view of one MTA connection. Every callback only
// collects; EndOfMessage takes all other steps.
type session struct {
	gomilter.NoOpMilter // for the events that we do not ask for

	srv       *Server
	conn      *conn
	abilities policy.Abilities
	origin    origin      // of the SMTP client the MTA is serving
	client    string      // its address for the log
	kept      []byte      // buffer for the next message's header
	msg       *message    // between MAIL FROM and the end, nil otherwise
	attrs     []slog.Attr // buffer for those of the next log line
}

var _ gomilter.Milter = (*session)(nil)

func (s *Server) newSession(c *conn, actions gomilter.OptAction, protocol gomilter.OptProtocol) gomilter.Milter {
	s.noteDegraded(actions)
	s.sessions.Add(1)
	sess := &session{srv: s, conn: c, abilities: abilitiesOf(actions)}
	if protocol&gomilter.OptNoHeaderReply != 0 {
		c.fields = sess.field
	}
	return sess
}

// guard ends a panic in a callback: the library would let it end the process.
// The message is answered 451 at its end, since what was collected of it can no
// longer be relied on.
func (s *session) guard(callback string) {
	if p := recover(); p != nil {
		s.srv.panicked(p, callback)
		if s.msg != nil {
			s.msg.broken = true
		}
	}
}

// panicked logs a panic.
func (s *Server) panicked(p any, callback string) {
	oplog.Panic(s.log, "panic in a milter callback, the message is deferred", p, "callback", callback)
}

// NewConnection begins a connection, or with SMFIC_QUIT_NC another SMTP client
// on the same one: nothing of the old one is kept.
func (s *session) NewConnection(gomilter.Modifier) error {
	defer s.guard("new connection")
	s.abandon(nil)
	s.origin, s.client = origin{}, ""
	return nil
}

// unknownHost is what MTAs call a client of which they know nothing: a proxy did
// not say, or it was gone before it could be asked.
const unknownHost = "unknown"

// Connect learns who the SMTP client is.
func (s *session) Connect(host, family string, _ uint16, addr string, _ gomilter.Modifier) (*gomilter.Response, error) {
	defer s.guard("connect")
	s.origin, s.client = origin{}, addr
	switch family {
	case "tcp4", "tcp6":
		client, err := netip.ParseAddr(addr)
		if err == nil && !client.IsUnspecified() {
			s.origin.client = client.Unmap().WithZone("")
		}
	case "unix":
		s.origin.local = true
	default: // injected on this machine, if the MTA knows at least that much
		s.origin.local = host != unknownHost
	}
	return gomilter.RespContinue, nil
}

// MailFrom begins a message.
func (s *session) MailFrom(from, args string, m gomilter.Modifier) (*gomilter.Response, error) {
	defer s.guard("mail")
	s.abandon(m)
	o := s.origin
	o.daemon = m.Get(gomilter.MacroDaemonName)
	o.login = m.Get(gomilter.MacroAuthAuthen)
	sender := from
	if f, resolved := m.Get(macroSender), m.Get(gomilter.MacroMailAddr); f != "" || resolved != from {
		sender = senderAsMTA(from, f, resolved)
	}
	s.begin(newMessage(s.srv.acquire(), o, s.client, m.Get(gomilter.MacroMTAFQDN), sender, args))
	s.msg.separate = s.msg.engine.Policy.Separates() && m.Protocol()&gomilter.OptNoRcptReply == 0
	if s.msg.class == inbound && s.msg.addrErr == nil {
		s.msg.engine.Verifier.Prefetch(s.msg.address)
	}
	return gomilter.RespContinue, nil
}

// RcptTo takes a recipient. One whose Profile is not that of the first one is answered
// 452, and the client tries it again in another transaction (policy.recipients: separate;
// RFC 5321 section 4.5.3.1.10).
func (s *session) RcptTo(to, args string, m gomilter.Modifier) (*gomilter.Response, error) {
	defer s.guard("rcpt")
	if s.msg == nil {
		return gomilter.RespContinue, nil
	}
	understood := to
	if resolved := m.Get(gomilter.MacroRcptAddr); resolved != to {
		understood = asMTA(to, resolved)
	}
	s.msg.addRecipient(to, understood, args)
	if s.msg.separate && s.msg.needsOwnTransaction(s.srv.ctx) {
		return response(ownTransaction), nil
	}
	return gomilter.RespContinue, nil
}

// Header takes a header field.
func (s *session) Header(name, value string, _ gomilter.Modifier) (*gomilter.Response, error) {
	defer s.guard("header")
	if s.msg != nil {
		s.msg.addField([]byte(name), []byte(value))
	}
	return gomilter.RespContinue, nil
}

// field is Header from under the library.
func (s *session) field(name, value []byte) {
	defer s.guard("header")
	if s.msg != nil {
		s.msg.addField(name, value)
	}
}

// EndOfMessage takes the steps of a message, one after the other. What goes wrong in
// them is answered 451.
func (s *session) EndOfMessage(m gomilter.Modifier) (resp *gomilter.Response, err error) {
	msg := s.msg
	if msg == nil { // there was no MAIL FROM: nothing is known of the message, it must not pass
		return response(filterError.Reply), nil
	}
	defer s.end(msg)
	msg.queueID = m.Get(gomilter.MacroQueueId)
	out := outcome{own: filterError}
	func() {
		defer s.guard("end of message")
		h := handler{abilities: s.abilities, panicked: s.srv.panicked,
			progress: func() { _ = m.Progress() }} // an MTA too old for it, or gone; the answer comes all the same
		decided := h.decide(s.srv.ctx, msg)
		if decided.own.IsZero() && len(decided.plan.Recipients) > 0 {
			h.tell(s.srv.ctx, msg, &decided)
		}
		if err = decided.change(msg, &changes{library: m, header: s.conn}); err == nil {
			out = decided
		}
	}()
	s.srv.answered.Add(1)
	s.logMessage(msg, &out)
	if err != nil {
		// The MTA has some of the changes; it drops them when the connection is closed.
		return nil, fmt.Errorf("change message: %w", err)
	}
	return out.answer(), nil
}

// Abort ends a message that will not be finished, and no more than that: the
// SMTP client stays.
func (s *session) Abort(m gomilter.Modifier) error {
	defer s.guard("abort")
	s.abandon(m)
	return nil
}

// Cleanup ends the connection.
func (s *session) Cleanup(m gomilter.Modifier) {
	defer s.srv.sessions.Add(-1)
	defer s.guard("cleanup")
	defer s.conn.recycle()
	s.abandon(m)
}

// begin makes msg the session's message. A message that begins while we are stopping
// is not waited for, and will be answered 451.
func (s *session) begin(msg *message) {
	s.msg = msg
	msg.kept = s.kept[:0]
	msg.uncounted = s.srv.stopping.Load()
	if !msg.uncounted {
		s.srv.inFlight.Add(1)
	}
}

// end forgets the session's message.
func (s *session) end(msg *message) {
	if !msg.uncounted {
		s.srv.inFlight.Add(-1)
	}
	s.kept = msg.kept
	s.srv.release(msg.engine)
	s.msg = nil
}

// acquire binds a message that begins to the Engine in force.
func (s *Server) acquire() *Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.engine.messages++
	return s.engine
}

// release says that a message of the Engine has ended.
func (s *Server) release(e *Engine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.messages--
	e.releaseIfUnused()
}

// releaseIfUnused is called under Server.mu.
func (e *Engine) releaseIfUnused() {
	if e.retired && e.messages == 0 && e.Release != nil {
		e.Release()
	}
}

// abandon ends a message that did not reach its end, if there is one.
func (s *session) abandon(m gomilter.Modifier) {
	if msg := s.msg; msg != nil {
		if m != nil {
			msg.queueID = m.Get(gomilter.MacroQueueId)
		}
		s.logAborted(msg)
		s.end(msg)
	}
}
