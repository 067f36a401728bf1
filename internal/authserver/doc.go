// Package authserver answers VERIFY questions over TCP and TLS: the server side
// of docs/protocol.md sections 2 and 3, for domains whose keys package keyring
// knows (section 7).
//
// Questions are answered from memory, one after another on each connection, and
// the replies of questions that came together leave together. What a client can
// cost is bounded: connections, questions per client and time, the length of a
// line and the time it may take to arrive, the time a reply may take to be read.
//
// DNS records, the files behind the domains and the making of TLS listeners are
// the caller's. Keys appear in no output: no log line, no reply, no error.
package authserver
