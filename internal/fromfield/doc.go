// Package fromfield reads the From fields of a message (RFC 5322 section 3.6.2), and finds
// the addresses that people may see in them.
//
// Programs that show mail do not agree about a malformed From field, and a forger chooses
// a form about which they disagree. Therefore a [Reading] has two parts:
//
//   - Mailboxes: what the fields name, by a liberal reading of RFC 5322 with
//     comments and blanks around every token, the obsolete forms, and the faults
//     that programs make without bad intent: commas, colons and brackets in a
//     display name, raw 8-bit names, a missing ">", text after it.
//   - Shown: further addresses that some program could show. They are found by
//     looking at the text in several ways: comments kept or taken out, encoded words
//     as they are or decoded, alone or joined, quotes and blanks kept or taken out,
//     Unicode characters as they are, in compatibility form (NFKC), and as the ASCII
//     characters that they resemble (UTS 39 and a few more), A-labels as Unicode.
//
// The result of the From field is that of Mailboxes. Shown is used only to find out whether
// a domain that requires keys is anywhere in the field. The package does no I/O, and the
// time to read a field grows only with its length.
//
// It leaves out the From fields of attached messages, and ASCII characters that
// resemble each other ("rn" and "m", "l" and "1").
package fromfield
