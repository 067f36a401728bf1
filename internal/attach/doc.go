// Package attach decides which AuthKey a message that one of our own users submits
// is given: the sending side of docs/protocol.md section 8.
//
// A key goes to a message whose submitter may use both the MAIL FROM address and
// every address of the From field, and whose recipients all are where the domain's
// keys may go. It is the key of the MAIL FROM address, which is the one that the
// receiving side asks about; only where MAIL FROM is null or of a domain that is not
// ours is it the From address's. What is not given a key is sent all the same, with
// the reason for the log.
//
// Keys come from package keyring, out of the secret, the address list and the clock
// that the domain's Authentication Server has too: no network is needed.
//
// Left out are the header itself (which fields are added or replaced, and whose
// messages are submissions, is for the caller) and keys fetched from a server.
package attach
