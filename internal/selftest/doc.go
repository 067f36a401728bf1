// Package selftest tests a milter without the network: it has a DNS server, an
// Authentication Server and an MTA's side (package front) of its own, all in this process,
// on loopback. It sends a message of each result (docs/protocol.md section 5) through the
// milter, and others with a forged From field and with forged results.
//
// What must be done with each message follows from the result that it was made to have and
// from the policy in force. What was done with it is read from what the MTA's side has to
// deliver, from the notices that arrive and from the log. Under every policy, no key may be
// in any of these.
//
// It does not test whether the MTA reaches the milter's socket, nor whether DNS and other
// people's servers can be reached.
package selftest
