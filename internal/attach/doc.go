// Package attach decides which AuthKey a message that one of our own users submits
// is given: the sending side of docs/protocol.md section 8.
//
// A message gets a key if its submitter may use both the MAIL FROM address and every
// address of the From field, and if all its recipients are in domains to which the
// domain's keys may go. It is the key of the MAIL FROM address, since that is the address
// about which the receiving side asks; only where MAIL FROM is null or of a domain that is
// not ours it is the key of the From address. A message without a key is sent all the
// same, and the log has the reason.
//
// Keys come from package keyring. It derives them from the secret, the address list and the
// clock, which the domain's Authentication Server has too, so that no network is needed.
//
// The package does not change the header and does not decide which messages are
// submissions: the caller does. It fetches no keys from a server.
package attach
