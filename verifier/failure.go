package verifier

import (
	"errors"
	"fmt"
)

// A failure is why one AS gave no verdict, or DNS no records. The Reason tells
// whether it may pass by itself.
type failure struct {
	reason Reason
	err    error
}

func failuref(reason Reason, format string, args ...any) *failure {
	return &failure{reason: reason, err: fmt.Errorf(format, args...)}
}

func (f *failure) Error() string { return string(f.reason) + ": " + f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// reasonOf returns the Reason of an error of this package.
func reasonOf(err error) Reason {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f.reason
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

// troubled reports whether the reason counts against an AS: refused, timeout,
// TLS and violation do, answers of any kind do not (docs/protocol.md section 4).
func (r Reason) troubled() bool {
	switch r {
	case ReasonASRefused, ReasonASTimeout, ReasonASTLS, ReasonASViolation:
		return true
	}
	return false
}
