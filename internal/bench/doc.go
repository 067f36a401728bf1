// Command bench measures authkey-milter as MTAs see it, and authkey-server as
// recipients do: `make bench`.
//
// A raw milter client takes the place of the MTA (milter protocol version 6, as Postfix
// speaks it) on a unix socket and measures messages a second, and the processor time and
// memory of the filter's process. It does the same to Debian's OpenDKIM, to a C
// filter on libmilter that makes the same changes, and to a Go program that reads the
// frames, answers with the same changes and does nothing else: no filter in Go could be
// cheaper. Runs of the filters take turns, and medians count.
//
// The server runs as a process of its own too, beside a bare TCP line echo, another
// process of this program: answers a second, the time it takes to start with a long
// list, its memory, whether the times of its answers tell which addresses exist, and
// what the milter makes of a set of servers of which two fail.
//
// Each scenario prints a table and its targets; if one is missed the exit code is 1.
// docs/performance.md has the figures and explains them.
//
// It leaves out Sendmail, the rate of answers over TLS and the loss of packets.
package main
