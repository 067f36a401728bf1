// Package wire holds everything of the AuthKey verification protocol,
// version 1, that can be said without a network: the canonical form of an
// address, the AuthKey as a value that cannot be printed by accident, the DNS
// TXT record that names an Authentication Server (AS), and the lines which the
// two sides exchange.
//
// It implements docs/protocol.md sections 1 (records), 2 and 3 (lines and addresses). It
// does no I/O, starts nothing, and imports only esmtp of the project's packages. The
// recipient's side and the server have no other code of the protocol in common.
package wire
