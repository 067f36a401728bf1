// Package report reads the milter's log lines (msg=message, docs/policy.md) and counts
// them: which results the mail of each sender domain had, what was done with it and, in test
// mode, what would have been done.
//
// Lines may be logfmt or JSON, alone or after what syslog (RFC 3164, RFC 5424), the journal
// or a container's log (CRI, Docker, docker compose, kubectl) puts before them. Lines of
// other programs in the same file are skipped. They cannot be mistaken for ours, because
// ours begin directly after the header. What strangers chose, such as domains, is bounded
// in number and printed so that it cannot control a terminal.
package report
