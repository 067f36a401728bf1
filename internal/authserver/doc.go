// Package authserver answers VERIFY questions over TCP and TLS: the server side
// of docs/protocol.md sections 2 and 3, for domains whose keys package keyring
// knows (section 7).
//
// Questions are answered from memory, one after another on each connection, and the
// replies to questions that arrived together are sent together. What a client can use is
// bounded: connections, questions per time, the length of a line, the time until it has
// arrived, and the time until a reply has been read.
//
// The caller publishes DNS records, reads the files of the domains and makes the TLS
// listeners. Keys appear in no output: no log line, no reply, no error.
package authserver
