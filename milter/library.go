package milter

import (
	"fmt"
	"log/slog"
	"net"
	"sync"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/policy"
)

// What we ask an MTA for. Without the actions in requiredActions no key could be
// removed and no result written; without another one a policy can do less.
const (
	requiredActions = gomilter.OptAddHeader | gomilter.OptChangeHeader
	wantedActions   = requiredActions | gomilter.OptQuarantine | gomilter.OptRemoveRcpt | gomilter.OptAddRcpt | gomilter.OptSetMacros

	// No body, no events without use, and no reply before the end of the message:
	// an MTA that need not wait for us after each header field is three times as fast.
	wantedProtocol = gomilter.OptNoBody | gomilter.OptNoData | gomilter.OptNoUnknown |
		gomilter.OptNoHelo | gomilter.OptNoEOH | gomilter.OptNoReplies
)

// The macros we ask for. Such a request replaces the MTA's own lists, so that everything
// needed must be in it. Postfix has no queue id before the first valid recipient; therefore
// it is asked for again at the end.
var (
	macrosAtConnect = []gomilter.MacroName{gomilter.MacroMTAFQDN, gomilter.MacroDaemonName,
		gomilter.MacroClientAddr, gomilter.MacroRFC1413AuthInfo}
	macrosAtMail = []gomilter.MacroName{gomilter.MacroQueueId, gomilter.MacroAuthAuthen, gomilter.MacroMailAddr, macroSender}
	macrosAtRcpt = []gomilter.MacroName{gomilter.MacroRcptAddr}
	macrosAtEOH  = []gomilter.MacroName{"{authkey_none}"} // no such macro exists; without a list the MTA would send its own
	macrosAtEnd  = []gomilter.MacroName{gomilter.MacroQueueId}
)

// macroSender is the envelope sender as Sendmail has read it, before it strips its own
// name off and looks for an address in what is left, as {mail_addr} has it. Postfix has
// no such macro.
const macroSender gomilter.MacroName = "f"

// libraryOptions are those of every connection.
func (s *Server) libraryOptions() []gomilter.Option {
	return []gomilter.Option{
		gomilter.WithActions(wantedActions),
		gomilter.WithProtocols(wantedProtocol),
		gomilter.WithNegotiationCallback(s.negotiate),
		gomilter.WithMacroRequest(gomilter.StageConnect, macrosAtConnect),
		gomilter.WithMacroRequest(gomilter.StageMail, macrosAtMail),
		gomilter.WithMacroRequest(gomilter.StageRcpt, macrosAtRcpt),
		gomilter.WithMacroRequest(gomilter.StageEOH, macrosAtEOH),
		gomilter.WithMacroRequest(gomilter.StageEOM, macrosAtEnd),
		gomilter.WithWriteTimeout(0), // conn bounds writes
	}
}

// runLibrary has the library serve one connection, in a goroutine that it starts. The
// library has no other way to tell a session which connection is its own than a
// server of the session's own, which costs some allocations.
func (s *Server) runLibrary(c *conn) {
	lib := gomilter.NewServer(append(s.options[:len(s.options):len(s.options)], gomilter.WithDynamicMilter(
		func(_ uint32, actions gomilter.OptAction, protocol gomilter.OptProtocol, _ gomilter.DataSize) gomilter.Milter {
			return s.newSession(c, actions, protocol)
		}))...)
	_ = lib.Serve(&once{conn: c}) // ends with the listener, at once
}

// A once is a listener that accepts one connection, which is there already.
type once struct{ conn *conn }

func (o *once) Accept() (net.Conn, error) {
	if c := o.conn; c != nil {
		o.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return nil }

// negotiate takes what the MTA offers of what we want. The library by itself
// would close the connection if anything were missing, and every client of an
// MTA with milter_protocol = 2 would get 451. Replies to RCPT are given only where
// the policy has something to say there.
func (s *Server) negotiate(mtaVersion, ourVersion uint32, mtaActions, ourActions gomilter.OptAction,
	mtaProtocol, ourProtocol gomilter.OptProtocol, offered gomilter.DataSize) (
	version uint32, actions gomilter.OptAction, protocol gomilter.OptProtocol, size gomilter.DataSize, err error) {
	if missing := requiredActions &^ mtaActions; missing != 0 {
		return 0, 0, 0, 0, fmt.Errorf("MTA does not let a filter change headers: it lacks %s", missing)
	}
	if s.inForce().Policy.Separates() {
		ourProtocol &^= gomilter.OptNoRcptReply
	}
	return min(mtaVersion, ourVersion), ourActions & mtaActions, ourProtocol & mtaProtocol, offered, nil
}

func (s *Server) inForce() *Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine
}

// abilitiesOf says what an MTA lets us do.
func abilitiesOf(actions gomilter.OptAction) policy.Abilities {
	return policy.Abilities{
		Quarantine:      actions&gomilter.OptQuarantine != 0,
		DeleteRecipient: actions&gomilter.OptRemoveRcpt != 0,
		AddRecipient:    actions&gomilter.OptAddRcpt != 0,
	}
}

// noteDegraded says once what an MTA will not do.
func (s *Server) noteDegraded(actions gomilter.OptAction) {
	if missing := wantedActions &^ gomilter.OptSetMacros &^ actions; missing != 0 {
		s.degraded.Do(func() {
			s.log.Warn("the MTA lacks actions that the policy uses: mail is marked instead", "missing", missing.String())
		})
	}
}

// The library reports through one function for the whole process; it goes to the
// logger of the Server made last.
var libraryLog struct {
	once sync.Once
	mu   sync.Mutex
	log  *slog.Logger
	rate oplog.Limit
}

// maxLibraryText bounds what the library says of an MTA's input.
const maxLibraryText = 200

func routeLibraryWarnings(log *slog.Logger) {
	libraryLog.mu.Lock()
	libraryLog.log = log
	libraryLog.mu.Unlock()
	libraryLog.once.Do(func() {
		gomilter.LogWarning = func(format string, v ...any) {
			libraryLog.mu.Lock()
			log := libraryLog.log
			libraryLog.mu.Unlock()
			if left, ok := libraryLog.rate.Allow(); ok {
				log.Warn("milter connection", "detail", oplog.Cut(fmt.Sprintf(format, v...), maxLibraryText), "suppressed", left)
			}
		}
	})
}
