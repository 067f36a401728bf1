package verifier

import (
	"log/slog"
	"net/netip"
)

// NameServers lists the name servers that a Verifier with these options asks now,
// in order of preference.
func NameServers(o Options) []netip.AddrPort {
	return nameServers(o, slog.New(slog.DiscardHandler))()
}
