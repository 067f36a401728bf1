package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/attach"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
)

// A keyDomain is one of attach.domains whose keys can be made here.
type keyDomain struct {
	*keyring.Domain
	avt    time.Duration
	sample []listEntry // of its addresses
	all    int         // how many there are; 0: any local part is one
}

// A listEntry is an address with its generation in the list.
type listEntry struct {
	address    wire.Address
	generation uint32
}

// maxAsked bounds of how many addresses of a domain the keys are asked about.
const maxAsked = 100

const (
	restart  = "systemctl restart authkey-milter"
	noKeys   = "its users' mail gets no keys"
	fromAuth = "   # FILE: the one of the Authentication Server"
)

// attachments looks at what keys are made from, and at the servers that have to know
// them.
func (c *checks) attachments() (found []Finding, domains []keyDomain) {
	all := attach.Configured(c.Config.Attach, "authkey")
	if len(all.Domains) == 0 {
		return nil, nil
	}
	sound := all
	sound.Domains = nil
	for _, d := range all.Domains {
		f, ring := c.secret(d)
		found = append(found, f)
		f, k := c.addresses(d)
		found = append(found, f)
		if ring == nil {
			continue
		}
		sound.Domains = append(sound.Domains, d)
		if f.Status == OK {
			k.Domain, k.avt = ring, d.AVT
			domains = append(domains, k)
		}
	}
	return append(found, c.authorize(sound)...), domains
}

// secret opens a domain. It returns nil with a secret that cannot be used.
func (c *checks) secret(d attach.Domain) (Finding, *keyring.Domain) {
	path := d.SecretFile
	fault := func(what, why, mend string) Finding {
		return Finding{CheckSecret, Fault, d.Domain + ": " + what, why, mend}
	}
	ring, err := keyring.Open(d.Config)
	if who, lookupErr := lookup(c.Service.User); err == nil && c.Service.User != "" && lookupErr == nil && !d.OpenSecret && !c.Service.Passes(path) {
		groups := make([]int, len(who.groups)) // the milter judges by its own, not by root's
		for i, gid := range who.groups {
			groups[i] = int(gid)
		}
		err = keyring.PrivateTo(path, groups)
	}
	var mode *keyring.ModeError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if c.Service.hasCopy(path) {
			return Inapplicablef(CheckSecret, "%s: there is no %s; the milter runs with what systemd passed it under that name", d.Domain, path), nil
		}
		return fault("there is no secret file "+path, noKeys, "install -m 0600 FILE "+path+fromAuth+"\n"+restart), nil
	case errors.Is(err, fs.ErrPermission):
		return Inapplicablef(CheckSecret, "%v; run doctor as root", err), nil
	case errors.As(err, &mode):
		return fault(fmt.Sprintf("others than its owner may read the secret file %s, which has mode %04o", path, mode.Mode.Perm()),
			"who reads it can make the keys of all addresses: the milter refuses it", "chmod 0600 "+path+"\n"+restart), nil
	case err != nil:
		return Finding{CheckSecret, Fault, program.OneLine(err), noKeys, "install -m 0600 FILE " + path + fromAuth + "\n" + restart}, nil
	}
	if c.Service.Passes(path) {
		switch stale, err := c.Service.StaleCopy("the milter", path); {
		case err != nil:
			return Inapplicablef(CheckSecret, "%s: %v; run doctor as root", d.Domain, err), ring
		case stale != "":
			return fault(stale, "its users' mail gets no keys, or those of the old secret", restart), ring
		}
		return Okf(CheckSecret, "%s: systemd passes %s to the milter, and nobody else may read it", d.Domain, path), ring
	}
	if obstacle, who := c.mayNotRead(path); obstacle != nil {
		mend := fmt.Sprintf("chown %s %s\n%s", c.Service.User, path, restart)
		if obstacle.path != path {
			mend = obstacle.open(who) + "\n" + mend
		}
		return fault(fmt.Sprintf("the milter's user %s may not read the secret file: %s", c.Service.User, obstacle), noKeys, mend), ring
	}
	return Okf(CheckSecret, "%s: the milter may read %s, and nobody else", d.Domain, path), ring
}

// mayNotRead is what keeps the milter's user from reading a file; nil also where that cannot
// be found out.
func (c *checks) mayNotRead(path string) (*obstacle, account) {
	if c.Service.User == "" {
		return nil, account{}
	}
	who, err := lookup(c.Service.User)
	if err != nil {
		return nil, account{}
	}
	obstacle, err := who.reach("/", path, mayRead)
	if err != nil {
		return nil, account{}
	}
	return obstacle, who
}

// addresses reads the list of a domain.
func (c *checks) addresses(d attach.Domain) (Finding, keyDomain) {
	path, isFile := strings.CutPrefix(d.Addresses, "file:")
	if !isFile {
		k := keyDomain{}
		if a, err := wire.ParseAddress("postmaster@" + d.Domain); err == nil {
			k.sample = []listEntry{{address: a}}
		}
		return Okf(CheckAddresses, "%s: every local part is an address", d.Domain), k
	}
	fault := func(what, mend string) (Finding, keyDomain) {
		return Finding{CheckAddresses, Fault, d.Domain + ": " + what, noKeys, mend}, keyDomain{}
	}
	k, err := readEntries(keyring.ListFile{Path: path, Form: d.Form})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault("there is no address list "+path, "install -m 0644 FILE "+path+fromAuth)
	case errors.Is(err, fs.ErrPermission):
		return Inapplicablef(CheckAddresses, "%s: %v; run doctor as root", d.Domain, err), keyDomain{}
	case err != nil:
		return fault(program.OneLine(err), "install -m 0644 FILE "+path+fromAuth)
	case k.all == 0:
		return fault("the address list "+path+" has no address", "on the Authentication Server: authkey-server address add ADDRESS...\ninstall -m 0644 FILE "+path+fromAuth)
	}
	if obstacle, who := c.mayNotRead(path); obstacle != nil {
		return fault(fmt.Sprintf("the milter's user %s may not read the address list: %s", c.Service.User, obstacle), obstacle.open(who))
	}
	return Okf(CheckAddresses, "%s: the milter may read %s: %d in the list", d.Domain, path, k.all), k
}

// readEntries reads a list, and keeps at most maxAsked addresses evenly spread in it.
func readEntries(list keyring.ListFile) (keyDomain, error) {
	var k keyDomain
	every := 1
	err := list.Each(func(e keyring.Entry) error {
		k.all++
		if (k.all-1)%every != 0 {
			return nil
		}
		a, err := wire.ParseAddress(e.Address)
		if err != nil {
			return fmt.Errorf("address list %s: %w", list.Path, err)
		}
		if len(k.sample) == maxAsked {
			for i := range maxAsked / 2 {
				k.sample[i] = k.sample[2*i]
			}
			k.sample = k.sample[:maxAsked/2]
			every *= 2
			if (k.all-1)%every != 0 {
				return nil
			}
		}
		k.sample = append(k.sample, listEntry{a, e.Generation})
		return nil
	})
	return k, err
}

// authorize reads the map of logins. sound has the domains whose secrets can be used.
func (c *checks) authorize(sound attach.Options) []Finding {
	path, isMap := strings.CutPrefix(sound.Authorize, "map:")
	if !isMap {
		return nil
	}
	const why = "nobody's mail gets a key: the milter does not start, or goes on with the map that it has"
	_, err := attach.New(sound, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{{CheckAuthorize, Fault, "there is no map of logins " + path, why, "in " + path + ": ADDRESS LOGIN, one a line\nsystemctl reload authkey-milter"}}
	case errors.Is(err, fs.ErrPermission):
		return []Finding{Inapplicablef(CheckAuthorize, "%v; run doctor as root", err)}
	case err != nil:
		return []Finding{{CheckAuthorize, Fault, program.OneLine(err), why, "in " + path + ": correct the line\nsystemctl reload authkey-milter"}}
	}
	if obstacle, who := c.mayNotRead(path); obstacle != nil {
		return []Finding{{CheckAuthorize, Fault, fmt.Sprintf("the milter's user %s may not read the map of logins: %s", c.Service.User, obstacle),
			why, obstacle.open(who) + "\n" + restart}}
	}
	return []Finding{Okf(CheckAuthorize, "%s says who may use which address", path)}
}

// attachedField is what a signature must not cover, since recipients remove it.
const attachedField = "X-Auth-Key"

// signer looks whether OpenDKIM, where it runs after us, would sign the key.
func (c *checks) signer() []Finding {
	used := c.Postfix != nil && c.Postfix.UsesOpenDKIM() || c.Sendmail != nil && c.Sendmail.UsesOpenDKIM()
	if len(c.Config.Attach.Domains) == 0 || !used {
		return nil
	}
	path := c.OpenDKIMConf
	d := mtaconf.ReadOpenDKIM(path)
	if !d.Readable {
		return []Finding{Inapplicablef(CheckSigner, "%s cannot be read: does OpenDKIM sign %s?", path, attachedField)}
	}
	if setting, covered := d.Covers(attachedField); covered {
		return []Finding{{CheckSigner, Fault, fmt.Sprintf("OpenDKIM signs %s: %s in %s", attachedField, setting, path),
			"recipients that take part remove the field, and the signature is broken",
			fmt.Sprintf("in %s: take %s out of %s\nsystemctl restart opendkim", path, attachedField, setting)}}
	}
	return []Finding{Okf(CheckSigner, "OpenDKIM does not sign %s", attachedField)}
}
