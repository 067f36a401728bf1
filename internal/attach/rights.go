package attach

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/milter"
)

// A use says what a submitter may do with an address.
type use uint8

const (
	deny     use = iota
	spelling     // send as it, but not with its key: what was granted is only another spelling of it
	allow
)

// A right says what a submitter may do with an address. The error is keyring.ErrNoList.
type right func(addr wire.Address, now time.Time) (use, error)

// rights returns which addresses the submitter may use.
func (a *Attacher) rights(m milter.OwnMail) (right, Reason) {
	switch {
	case m.Login == "":
		if !slices.ContainsFunc(a.networks, func(p netip.Prefix) bool { return p.Contains(m.Client) }) {
			return nil, NoLogin
		}
		return func(addr wire.Address, _ time.Time) (use, error) { return useIf(a.domains[addr.Domain()] != nil), nil }, ""
	case diskfile.CheckName(m.Login) != nil && utf8.ValidString(m.Login):
		return nil, LoginSpelling
	case a.logins != nil:
		return func(addr wire.Address, now time.Time) (use, error) { return a.granted(m.Login, addr, now) }, ""
	}
	own, err := wire.ParseAddress(m.Login)
	if err != nil {
		return nil, LoginForm
	}
	if d := a.domains[own.Domain()]; d != nil && (!d.Own(own) || !isSpelling(m.Login, own)) {
		return nil, LoginSpelling
	}
	name := a.names(own)[0]
	return func(addr wire.Address, now time.Time) (use, error) {
		if !slices.Contains(a.names(addr), name) {
			return deny, nil
		}
		same, err := a.same(own, addr, now)
		return useIf(same), err
	}, ""
}

// isSpelling reports whether a login is an address in exactly this spelling, but for the case
// of ASCII letters and the form of an international domain. To the program that lets people
// log in, a source route, needless quotes or a dot after the domain make another login.
func isSpelling(login string, addr wire.Address) bool {
	login, mailbox := foldLogin(login), foldLogin(addr.Mailbox())
	if login == mailbox {
		return true
	}
	domain, err := idna.Punycode.ToUnicode(addr.Domain())
	local, isOf := strings.CutSuffix(mailbox, addr.Domain())
	return err == nil && isOf && login == local+domain
}

func useIf(allowed bool) use {
	if allowed {
		return allow
	}
	return deny
}

// granted looks an address up in the map as Postfix does: as it is, without its
// sub-address, its domain. The first line found decides.
func (a *Attacher) granted(login string, addr wire.Address, now time.Time) (use, error) {
	login = foldLogin(login)
	for _, name := range a.names(addr) {
		line, ok := a.logins[name]
		if !ok {
			continue
		}
		if !line.has(login) {
			return deny, nil
		}
		if same, err := a.same(line.address, addr, now); !same || err != nil {
			return deny, err
		}
		if d := a.domains[addr.Domain()]; d != nil && !d.Own(line.address) {
			return spelling, nil
		}
		return allow, nil
	}
	line, ok := a.logins[addr.Domain()]
	return useIf(ok && line.has(login)), nil
}

// names returns the names under which rights to an address may have been given: in
// lower case unless its domain tells Bob from bob, as it is and, in a domain of ours,
// without its sub-address.
func (a *Attacher) names(addr wire.Address) []string {
	local, at := addr.Local(), "@"+addr.Domain()
	d := a.domains[addr.Domain()]
	if utf8.ValidString(local) && diskfile.CheckName(local) != nil { // in lower case it could be another person's address
		return []string{local + at}
	}
	if d == nil {
		return []string{strings.ToLower(local) + at}
	}
	if !d.CaseSensitive {
		local = strings.ToLower(local)
	}
	names := []string{local + at}
	if user, ok := d.CutSubaddress(local); ok {
		names = append(names, user+at)
	}
	return names
}

// same reports whether a right to one address is a right to another one for which names
// returns the same. Nobody may be given the key of another person's address: if the other
// address has a key, it must be the same key.
func (a *Attacher) same(given, addr wire.Address, now time.Time) (bool, error) {
	d := a.domains[addr.Domain()]
	if d == nil || given == addr {
		return true, nil
	}
	for {
		want, err := d.keys.KeyAt(addr, now)
		if err != nil {
			return errors.Is(err, keyring.ErrUnknownAddress), unlessUnknown(err)
		}
		got, err := d.keys.KeyAt(given, now)
		if err != nil || got.Key.Equal(want.Key) {
			return err == nil, unlessUnknown(err)
		}
		if again, err := d.keys.KeyAt(addr, now); err != nil || again.Key.Equal(want.Key) {
			return false, unlessUnknown(err)
		}
		// The list has changed in between.
	}
}

// unlessUnknown is err, or nil if err only says that an address has no key.
func unlessUnknown(err error) error {
	if errors.Is(err, keyring.ErrUnknownAddress) {
		return nil
	}
	return err
}
