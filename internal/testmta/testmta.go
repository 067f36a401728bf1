// Package testmta runs private mail systems for tests and demonstrations: a
// Postfix or a Sendmail with a configuration, a queue and ports of its own on
// 127.0.0.1, which leaves a mail system of the machine alone. Mail never leaves
// the machine: whatever such a system accepts, for its own domains, by relaying
// or as a bounce, is caught and can be read with Deliveries.
//
// Both need root and are made for Debian; Postfix 3.6 or newer elsewhere works
// too. The package has an SMTP client (RFC 5321) that sends what it is told,
// byte for byte, including what no client should send.
//
// Beside them it runs, as privately, a Dovecot that knows the passwords for a Postfix,
// and OpenDKIM, signing or verifying. XCLIENT's LOGIN can stand in for a login.
//
// It leaves out TLS beyond STARTTLS, ways to log in other than AUTH PLAIN, and IPv6.
package testmta

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/authkey/authkey/internal/testdaemon"
)

// Errors for which a caller may decide to do without a mail system.
var (
	// ErrNotRoot: a mail system can only be started by root.
	ErrNotRoot = errors.New("only root can start a mail system")
	// ErrNoPostfix: Postfix is missing and was not installed.
	ErrNoPostfix = errors.New("no Postfix on this machine")
	// ErrNoSendmail: Sendmail's files are missing and could not be fetched.
	ErrNoSendmail = errors.New("no Sendmail on this machine")
)

// Names that both mail systems use unless told otherwise.
const (
	DefaultHostname        = "mx.test"
	DefaultRecipientDomain = "rcpt.test"
)

// An MTA is a running private mail system: what *Postfix and *Sendmail have in
// common, so that one table of scenarios can run on both.
type MTA interface {
	// Name is "postfix" or "sendmail".
	Name() string
	// SMTPAddr is host:port of the listener that asks the milters.
	SMTPAddr() string
	// Deliveries are the messages delivered so far, one for each recipient,
	// oldest first.
	Deliveries() ([]Message, error)
	// WaitDelivered returns the first delivered message that match accepts. It
	// waits until ctx ends, or for a minute where ctx has no deadline.
	WaitDelivered(ctx context.Context, match func(Message) bool) (Message, error)
	// Queue is what has been accepted and not yet delivered, held mail included.
	Queue() ([]QueueEntry, error)
	// Held is the part of the queue that a filter has quarantined. A message is
	// there as soon as its client has heard 250.
	Held() ([]QueueEntry, error)
	// Cat is the content of a queued message, header and body, with LF.
	Cat(queueID string) ([]byte, error)
	// WaitIdle waits until nothing but held mail is queued; then a message that
	// was not delivered never will be. Deferred mail keeps it waiting.
	WaitIdle(ctx context.Context) error
	// Log is what the mail system has logged so far.
	Log() string
	// Stop ends all processes and removes all files. A second call does nothing.
	Stop() error
}

var (
	_ MTA = (*Postfix)(nil)
	_ MTA = (*Sendmail)(nil)
)

// A QueueEntry is a message in the queue of an MTA.
type QueueEntry struct {
	ID         string
	Queue      string // Postfix: "hold", "active", "deferred" …; Sendmail: "hold" or "queued"
	Sender     string // envelope sender; empty for the null sender
	Recipients []string
	// Reason is a quarantined message's reason. Postfix only logs it.
	Reason string
}

// queueHold is the queue of quarantined mail, for both systems.
const queueHold = "hold"

func held(entries []QueueEntry, err error) ([]QueueEntry, error) {
	var found []QueueEntry
	for _, e := range entries {
		if e.Queue == queueHold {
			found = append(found, e)
		}
	}
	return found, err
}

func waitDelivered(ctx context.Context, deliveries func() ([]Message, error), match func(Message) bool, log func() string) (Message, error) {
	var found Message
	var seen int
	err := testdaemon.Poll(ctx, func() (bool, error) {
		messages, err := deliveries()
		seen = len(messages)
		for _, m := range messages {
			if match(m) {
				found = m
				return true, nil
			}
		}
		return false, err
	})
	if err != nil {
		return Message{}, fmt.Errorf("wait for a delivery: %w; none of %d matches; the log ends:\n%s", err, seen, tail(log()))
	}
	return found, nil
}

func waitIdle(ctx context.Context, queue func() ([]QueueEntry, error), log func() string) error {
	var busy, idle int
	err := testdaemon.Poll(ctx, func() (bool, error) {
		entries, err := queue()
		busy = 0
		for _, e := range entries {
			if e.Queue != queueHold {
				busy++
			}
		}
		if idle++; busy > 0 {
			idle = 0
		}
		// A listing misses what moves from one queue to another meanwhile.
		return idle == 2 && err == nil, err
	})
	if err != nil {
		return fmt.Errorf("wait for an empty queue: %w; %d messages left; the log ends:\n%s", err, busy, tail(log()))
	}
	return nil
}

// tailLines is how much of a log goes into an error.
const tailLines = 20

func tail(log string) string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
