package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// A Domain is one of ours.
type Domain struct {
	// Config is where its keys come from. It must say what the domain's
	// Authentication Server says: secret, AVT and Form.
	keyring.Config
	// To lists the recipient domains to which its keys may go; nil means all.
	To []string
}

// Options say who is given keys.
type Options struct {
	Domains []Domain
	// Authorize is "login": a login may use the address that it is; or "map:" and the
	// path of a file in the form of Postfix's smtpd_sender_login_maps.
	Authorize string
	// Networks are the clients that may use every address of Domains without a login.
	Networks []netip.Prefix
	// TempFail defers messages for which there is no key only because the address list
	// has not been read; otherwise they go without one.
	TempFail bool
	// Brand names the program in X-Auth-Agent, such as authkey/1.0: printable ASCII.
	Brand string
}

// An Attacher decides about submissions. Its methods may be called at the same time.
type Attacher struct {
	domains  map[string]*domain // by canonical name
	opened   map[keyring.Config]*keyring.Domain
	rings    []*keyring.Domain // the same, in the order of Options
	logins   loginMap          // nil: authorize by login
	mapPath  string            // of the map; "" where there is none
	networks []netip.Prefix
	tempFail bool
	agent    string

	mapSaysEmpty bool // a line of the map says that it may have none
}

type domain struct {
	keyring.Form
	keys *keyring.Domain
	to   map[string]bool // canonical recipient domains; nil: all
}

// errEmptyMap says that nothing is left of the map in force.
var errEmptyMap = errors.New(`looks cut off: it holds no line any more; if that is meant, give it the line "# empty"`)

// New checks o, reads the secrets, and the map that Authorize names. Address lists
// are read by the first Reload or Watch; until then there is no key of a domain that has a
// list. old is the Attacher that the new one replaces, or nil. Domains of it whose
// configuration did not change are taken over, lists included.
//
// The error joins everything that is wrong; faults of a line in a secret file or in
// the map are of type *keyring.LineError.
func New(o Options, old *Attacher) (*Attacher, error) {
	a := &Attacher{
		domains:  make(map[string]*domain, len(o.Domains)),
		opened:   make(map[keyring.Config]*keyring.Domain, len(o.Domains)),
		networks: o.Networks,
		tempFail: o.TempFail,
		agent:    "smtp; " + o.Brand,
	}
	var faults []error
	for _, d := range o.Domains {
		faults = append(faults, a.add(d, old))
	}
	if !isBrand(o.Brand) {
		faults = append(faults, fmt.Errorf("brand %.60q is not printable ASCII", o.Brand))
	}
	if path, ok := strings.CutPrefix(o.Authorize, "map:"); ok {
		var err error
		a.mapPath = path
		a.logins, err = a.loadLogins(path)
		if err == nil && len(a.logins) == 0 && !a.mapSaysEmpty && old != nil && old.mapPath == path && len(old.logins) > 0 {
			err = fmt.Errorf("map of logins %s: %w", path, errEmptyMap)
		}
		faults = append(faults, err)
	} else if o.Authorize != "login" {
		faults = append(faults, fmt.Errorf("authorize %.60q is neither login nor map:FILE", o.Authorize))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return a, nil
}

// add opens a domain, or takes it over.
func (a *Attacher) add(d Domain, old *Attacher) error {
	added := &domain{Form: d.Form}
	if old != nil {
		added.keys = old.opened[d.Config]
	}
	if added.keys == nil {
		var err error
		if added.keys, err = keyring.Open(d.Config); err != nil {
			return err
		}
	}
	name := added.keys.Name()
	if a.domains[name] != nil {
		return fmt.Errorf("domain %s: is there twice", name)
	}
	if d.To != nil {
		added.to = make(map[string]bool, len(d.To))
	}
	for _, text := range d.To {
		to, err := wire.ParseDomain(text)
		if err != nil {
			return fmt.Errorf("domain %s: to %.60q: %w", name, text, err)
		}
		added.to[to] = true
	}
	a.domains[name] = added
	a.opened[d.Config] = added.keys
	a.rings = append(a.rings, added.keys)
	return nil
}

// Warnings says what may be wrong with the files that were read, though each of them can
// be used: one without a line, which does not say that this is meant, may have been cut off.
func (a *Attacher) Warnings() (all []string) {
	if a.mapPath != "" && len(a.logins) == 0 && !a.mapSaysEmpty {
		all = append(all, fmt.Sprintf("map of logins %s holds no line, so that no login gets a key; if that is meant, give it the line \"# empty\"", a.mapPath))
	}
	for _, d := range a.rings {
		if d.Unexplained() {
			all = append(all, fmt.Sprintf("address list of %s holds no address; if that is meant, give it the line \"# empty\"", d.Name()))
		}
	}
	return all
}

func isBrand(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7E })
}

// Reload reads the secrets and address lists of all domains, and reports each domain
// with nil, or with the reason why the previous content stays in force.
func (a *Attacher) Reload(report func(*keyring.Domain, error)) {
	for _, d := range a.rings {
		report(d, d.Reload())
	}
}

// Watch looks for changes of secrets and address lists each time that every has passed, and
// puts them in force, until ctx ends. Each change and each new failure is reported. The map
// is not watched: a new Attacher reads it.
func (a *Attacher) Watch(ctx context.Context, every time.Duration, report func(*keyring.Domain, error)) {
	diskfile.Watch(ctx, every, a.rings, report)
}
