package verifier

import (
	"errors"
	"fmt"

	"github.com/authkey/authkey/internal/stubdns"
)

// Why DNS gave no answer. Both errors are temporary.
var (
	// ErrDNSTimeout says that no name server answered in time.
	ErrDNSTimeout = stubdns.ErrTimeout
	// ErrDNSFailure says that every name server refused, failed, or answered nonsense.
	ErrDNSFailure = stubdns.ErrFailure
)

// A failure is why one AS gave no verdict, or DNS no records. The Reason tells
// whether it may pass by itself.
type failure struct {
	reason      Reason
	err         error
	unreachable bool // DNS was asked about the AS's name, and gave no address that we may dial
}

func failuref(reason Reason, format string, args ...any) *failure {
	return &failure{reason: reason, err: fmt.Errorf(format, args...)}
}

func (f *failure) Error() string { return string(f.reason) + ": " + f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// reasonOf returns the Reason of an error of this package or of stubdns.
func reasonOf(err error) Reason {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f.reason
	case errors.Is(err, stubdns.ErrPanic):
		return ReasonBroken
	case errors.Is(err, ErrDNSTimeout):
		return ReasonDNSTimeout
	}
	return ReasonDNSFailure
}

// permanent reports whether a set of servers that failed for such reasons alone
// makes a permerror (docs/protocol.md section 3).
func (r Reason) permanent() bool {
	switch r {
	case ReasonASNoHost, ReasonASForbidden, ReasonASClearText, ReasonASNotServed, ReasonASSyntax:
		return true
	}
	return false
}

// countsAgainstAS reports whether an AS that fails so too often is left alone: refused, timeout,
// TLS and violation do, answers of any kind do not (docs/protocol.md section 4).
func (r Reason) countsAgainstAS() bool {
	switch r {
	case ReasonASRefused, ReasonASTimeout, ReasonASTLS, ReasonASViolation:
		return true
	}
	return false
}

// unreachableHost reports whether an AS was not asked because DNS led from its name to no
// address that we may dial.
func unreachableHost(err error) bool {
	var f *failure
	if errors.As(err, &f) {
		return f.unreachable
	}
	return true // DNS failed
}

// withoutReason is the error without its Reason, for people.
func withoutReason(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f.err
	}
	return err
}
