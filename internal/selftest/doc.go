// Package selftest proves a milter without the world: it is the DNS, the
// Authentication Server and the MTA around one, all in this process, on loopback,
// and sends a message of each result (docs/protocol.md section 5) through it, with
// a forged From field and forged results besides.
//
// What must become of each message is worked out from the result that it was made
// to have and from the policy in force; what did become of it is read from what the
// front has to deliver, from the notices that arrive and from the log. Some things
// must hold under every policy: no key is left in any of these.
//
// It leaves out what the world decides: whether the MTA reaches the milter's
// socket, and whether DNS and other people's servers can be reached.
package selftest
