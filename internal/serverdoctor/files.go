package serverdoctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/keyring"
)

// files looks at the secret and the address list of every domain.
func (c *checks) files(context.Context) []doctor.Finding {
	if len(c.Domains) == 0 {
		return []doctor.Finding{doctor.NewFault(CheckSecret, "the configuration has no domains", "nobody's keys are verified", c.InitLine("DOMAIN"))}
	}
	var found []doctor.Finding
	for _, d := range c.Domains {
		f, opened := c.secret(d)
		found = append(found, f...)
		found = append(found, c.addresses(d, opened))
	}
	return found
}

// secret looks at the secret file of a domain. The Domain is nil where it cannot be used.
func (c *checks) secret(d Domain) ([]doctor.Finding, *keyring.Domain) {
	path := d.Keys.SecretFile
	bad := func(what, mend string) []doctor.Finding {
		return []doctor.Finding{doctor.NewFault(CheckSecret, d.Name+": "+what, noneVerify, mend)}
	}
	opened, err := keyring.Open(d.Keys)
	var mode *keyring.ModeError
	switch {
	case errors.Is(err, fs.ErrPermission):
		return []doctor.Finding{doctor.Inapplicablef(CheckSecret, "%s: %v; run doctor as root", d.Name, err)}, nil
	case errors.As(err, &mode):
		return bad(mode.Error(), "chmod 600 "+path), nil
	case errors.Is(err, fs.ErrNotExist):
		return bad(err.Error(), c.InitLine(d.Name)+"   # makes a new one; or restore it, and all keys stay valid"), nil
	case err != nil:
		return bad(err.Error(), "restore "+path), nil
	}
	found := doctor.Okf(CheckSecret, "%s: %s can be used", d.Name, path)
	if c.Unit.Passes(path) {
		found = doctor.Okf(CheckSecret, "%s: systemd passes %s to the server", d.Name, path)
		switch stale, err := c.Unit.StaleCopy("the server", path); {
		case err != nil:
			return []doctor.Finding{doctor.Inapplicablef(CheckSecret, "%s: which secret the server has: %v; run doctor as root", d.Name, err)}, opened
		case stale != "":
			return bad(stale, restartUnit), opened
		}
	} else if obstacle, what := c.mayNotRead(path); obstacle != nil && c.Unit.Known {
		return bad(what, "chown "+c.Reader.Name+" "+path), opened
	}
	return append([]doctor.Finding{found}, c.rotation(d)...), opened
}

// rotation tells of a replacement of the secret that waits for its last step.
func (c *checks) rotation(d Domain) []doctor.Finding {
	r, err := keyring.ReadRotation(d.Keys.SecretFile)
	if err != nil || r.Stage != keyring.StageRetiring {
		return nil
	}
	due := r.OldMayGo(d.Keys.AVT, d.Keys.Grace)
	if c.Now().Before(due) {
		return nil
	}
	return []doctor.Finding{doctor.NewWarning(CheckSecret, fmt.Sprintf("%s: the old secret (%s) is not needed since %s, and its keys are still accepted", d.Name, strings.Join(r.Old, ", "), due.UTC().Format(time.RFC3339)),
		"", c.CommandLine("secret", "rotate", d.Name))}
}

// addresses looks at the address list of a domain.
func (c *checks) addresses(d Domain, opened *keyring.Domain) doctor.Finding {
	const gone = "keys of the domain are answered TEMPFAIL: mail with them is deferred, or taken for unverified"
	if d.List == "" {
		return doctor.Inapplicablef(CheckAddresses, "%s: every local part is an address", d.Name)
	}
	if obstacle, what := c.mayNotRead(d.List); obstacle != nil {
		return doctor.NewFault(CheckAddresses, d.Name+": "+what, gone, obstacle.Mend)
	}
	if opened == nil {
		return doctor.Inapplicablef(CheckAddresses, "%s: not looked at without the secret", d.Name)
	}
	switch err := opened.Reload(); {
	case errors.Is(err, fs.ErrPermission):
		return doctor.Inapplicablef(CheckAddresses, "%v; run doctor as root", err)
	case errors.Is(err, fs.ErrNotExist):
		return doctor.NewFault(CheckAddresses, err.Error(), gone, c.InitLine(d.Name)+"   # makes an empty one; or restore it")
	case err != nil:
		return doctor.NewFault(CheckAddresses, err.Error(), gone, "correct "+d.List)
	case opened.Len() == 0:
		return doctor.NewFault(CheckAddresses, fmt.Sprintf("%s: %s has no address", d.Name, d.List), "every key of the domain is invalid", c.CommandLine("address", "add", "you@"+d.Name))
	}
	noun := "addresses"
	if opened.Len() == 1 {
		noun = "address"
	}
	return doctor.Okf(CheckAddresses, "%s: %s has %d %s", d.Name, d.List, opened.Len(), noun)
}

// certificate looks at the files of the certificate, and at the one that is shown.
func (c *checks) certificate(ctx context.Context) []doctor.Finding {
	files := c.Config.TLS
	if files.Cert == "" {
		return []doctor.Finding{doctor.Inapplicablef(CheckCertificate, "there is none: keys travel in clear text")}
	}
	const (
		refused = "recipients refuse the connection, and " + noneVerify
		stale   = "the server does not start, or shows an old certificate until it ends"
	)
	for _, path := range []string{files.Cert, files.Key} {
		if obstacle, what := c.mayNotRead(path); obstacle != nil {
			return []doctor.Finding{doctor.NewFault(CheckCertificate, what, stale, c.mendCertificate(path, obstacle))}
		}
	}
	cert, err := c.Certificate()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return []doctor.Finding{doctor.Inapplicablef(CheckCertificate, "%v; run doctor as root", err)}
	case err != nil:
		return []doctor.Finding{doctor.NewFault(CheckCertificate, err.Error(), stale, "put a certificate with its intermediates and its key there")}
	}
	var found []doctor.Finding
	for _, w := range cert.Warnings {
		found = append(found, doctor.NewFault(CheckCertificate, w, refused, "put another one into "+files.Cert+" and "+files.Key))
	}
	if f := c.shown(ctx, cert); f != nil {
		found = append(found, *f)
	}
	if len(found) == 0 {
		found = append(found, doctor.Okf(CheckCertificate, "%s is for %s, complete, and valid until %s", files.Cert, strings.Join(cert.Leaf.DNSNames, ", "), cert.Leaf.NotAfter.UTC().Format(time.RFC3339)))
	}
	return found
}

// certbotHook is what the packages bring for certbot.
const certbotHook = "/usr/share/doc/authkey-server/examples/certbot-deploy-hook"

// mendCertificate says how the service comes to a file of a certificate.
func (c *checks) mendCertificate(path string, obstacle *doctor.Obstacle) string {
	lineage := filepath.Dir(path)
	if filepath.Base(filepath.Dir(lineage)) != "live" { // not of certbot
		return obstacle.Mend
	}
	return fmt.Sprintf("RENEWED_LINEAGE=%s %s\nin %s: tls: {cert: /etc/authkey/tls/fullchain.pem, key: /etc/authkey/tls/privkey.pem}\n%s",
		lineage, certbotHook, c.ConfigFile, restartUnit)
}

// shown compares the certificate of the file with the one that the running server shows;
// nil: it is the same, or nobody answers.
func (c *checks) shown(ctx context.Context, cert Certificate) *doctor.Finding {
	for _, l := range c.Config.Listen {
		if !l.TLS {
			continue
		}
		conn, err := dial(ctx, here(l.Address), &tls.Config{InsecureSkipVerify: true}) // which one, is what is asked
		if err != nil {
			continue
		}
		shown := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
		_ = conn.Close() // nothing was said
		if shown.Equal(cert.Leaf) {
			continue
		}
		f := doctor.NewFault(CheckCertificate, fmt.Sprintf("%s shows another certificate than %s, one that ends %s", socketName(l), c.Config.TLS.Cert, shown.NotAfter.UTC().Format(time.RFC3339)),
			"the new one is not in force", reloadUnit+"\n"+lookUnit)
		return &f
	}
	return nil
}
