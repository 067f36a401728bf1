// Package verifier answers one question for a receiving mail server: is this
// AuthKey the sender address's, now? It implements the recipient's half of
// docs/protocol.md: the discovery of a domain's Authentication Servers (AS) in
// DNS (section 1), the transport and the commands (2 and 3), the client's duties
// towards servers that strangers name (4), the results (5) and the key cache (6).
//
// A program makes one Verifier with [New] and keeps it. For each message it makes an
// address of the sender with [ParseAddress] and a key of the X-Auth-Key fields with
// [JoinKeys], and calls [Verifier.Verify], which walks from the cache to DNS to the
// servers and back to the cache. Whatever happens on the way is a [Result], never an
// error: a network that fails is a [TempError]. [Verifier.Discover],
// [Verifier.CheckServer] and [Verifier.Ask] show people one step each.
//
// What is left out: DNSSEC validation is the name server's (its AD bit is handed
// on), DANE is not part of version 1, and nothing here knows of SMTP or of what
// becomes of a message.
//
// The AuthKey itself is held only while it is being verified; the cache and
// the table of verifications under way know a keyed digest of it.
package verifier
