// Package keyring derives and verifies the AuthKeys of a domain's addresses. Both sides of
// a sender's domain use it: the Authentication Server to verify a key, the milter of its
// MTA to attach one.
//
// It implements the key source of docs/protocol.md section 7. A key is derived
// from a secret, the address, the address's generation and the epoch, so that no key
// is stored or replicated: each machine that has the secret, the list of addresses and
// a clock can verify a key before any other machine attaches it.
//
// A key consists, in the base32 alphabet of RFC 4648, of
//
//	2 characters    the epoch modulo 1024, so that the server need not try several
//	32 characters   the first 160 bits of
//	                HMAC-SHA-256(secret, label, domain, local part, generation, epoch)
//
// where epoch is the Unix time divided by the AVT (AuthKey Valid Time). The
// local part is in the form that [Form] describes.
//
// Keys that reach a sender by mail (X-New-Auth-Key) and lists kept in a database
// are not implemented.
package keyring
