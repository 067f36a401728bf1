package attach

import (
	"strings"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/keyring"
)

// Configured returns the Options of a configuration. Secret files are those that it names;
// brand is Options.Brand.
func Configured(c config.Attach, brand string) Options {
	o := Options{Authorize: c.Authorize, Networks: c.Networks, TempFail: c.OnError == "tempfail", Brand: brand}
	for _, d := range c.Domains {
		o.Domains = append(o.Domains, Domain{
			Config: keyring.Config{
				Form:       keyring.Form{Domain: d.Domain, CaseSensitive: d.CaseSensitive, Subaddress: d.Subaddress},
				SecretFile: strings.TrimPrefix(d.Source, "secret:"), OpenSecret: c.AllowOpenSecrets, Addresses: d.Addresses, AVT: d.AVT,
			},
			To: d.To,
		})
	}
	return o
}
