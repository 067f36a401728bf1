// Package report reads the milter's log lines (msg=message, docs/design.md) and adds
// them up: what was found out about the mail of each sender domain, what was done
// with it and, in test mode, what would have been.
//
// Lines may be logfmt or JSON, alone or behind what syslog (RFC 3164, RFC 5424), the
// journal or a container's log (CRI, Docker, docker compose, kubectl) puts before them. What other programs
// say in the same file is passed over; it cannot be mistaken for a line of ours,
// because ours begins right behind the header. What comes from strangers, such as
// domains, is bounded in number and printed so that it cannot move a terminal's
// cursor.
package report
