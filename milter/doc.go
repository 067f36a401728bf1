// Package milter is the side that the MTA talks to: one session per MTA
// connection collects a message's envelope and header, asks the verifier at the
// end of the message, has the policy decide, and tells the MTA what to change
// and what to answer.
//
// It speaks the milter protocol through github.com/d--j/go-milter, which is
// known nowhere else. Under the library lies a connection of our own (conn.go)
// that refuses frames which the library would panic on, bounds memory and time,
// and keeps the number of packets small.
//
// What it promises to every message: the AuthKey is removed from inbound mail
// whatever the verdict; a fault of ours answers 451 and never loses or passes
// mail; nothing of one message is left when the next begins.
//
// A field after the first line that is no header field is body to the MTA. It is
// delivered unchanged and never counts as a key; the same holds for the headers
// of an attached message.
package milter
