// Package verifier answers one question for a receiving mail server: is this
// AuthKey valid for this sender address now? It implements the recipient's half of
// docs/protocol.md: the discovery of a domain's Authentication Servers (AS) in
// DNS (section 1), the transport and the commands (2 and 3), what a client must and
// must not do with servers that strangers name (4), the results (5) and the key
// cache (6).
//
// A program makes one Verifier with [New] and keeps it. For each message it makes an
// address of the sender with [ParseAddress] and a key of the X-Auth-Key fields with
// [JoinKeys], and calls [Verifier.Verify], which asks the cache, then DNS, then the
// servers, and puts a valid key into the cache. The outcome is always a [Result], never
// an error: a network that fails is a [TempError]. [Verifier.Discover],
// [Verifier.CheckServer] and [Verifier.Ask] show people one step each.
//
// What is left out: DNSSEC is validated by the name server (its AD bit is handed on),
// DANE is not part of version 1, and nothing here knows of SMTP or decides what is done
// with a message.
//
// The AuthKey itself is held only while it is being verified. The cache and the table of
// verifications under way hold a keyed digest of it.
package verifier
