// Package keyring knows which AuthKey belongs to which address of a domain, on
// both halves of the sender's side: the Authentication Server asks it whether a
// key is valid, the MTA asks it which key to attach.
//
// It implements the key source of docs/protocol.md section 7. A key is derived
// from a secret, the address, the address's generation and the epoch, so that
// nothing has to be stored or replicated: every machine which holds the secret
// and the list of addresses can verify a key before anybody attaches it. The
// secret, the list and the clock are all there is.
//
// A key reads, in the base32 alphabet of RFC 4648,
//
//	2 characters    the epoch modulo 1024, so that nobody has to guess it
//	32 characters   the first 160 bits of
//	                HMAC-SHA-256(secret, label, domain, local part, generation, epoch)
//
// where epoch is the Unix time divided by the AVT (AuthKey Valid Time). The
// local part is the mapped one: see [Form].
//
// Keys that reach a sender by mail (X-New-Auth-Key) and lists kept in a database
// are left out.
package keyring
