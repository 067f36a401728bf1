package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
)

// answerTTL is how long recipients may rely on an answer of a site's server. With the
// default of an hour the demo would take too long.
const answerTTL = "2s"

// siteYAML is how the milter of a site differs from the defaults: forged mail is refused,
// also if only the From field, which people see, is forged.
const siteYAML = `
local_domains: [%s]
policy: {fail: reject}
from: {check: enforce, actions: {fail: reject}}
`

// A site is a domain with everything that it runs.
type site struct {
	domain string
	config string // of the Authentication Server
	binary string // authkey-server
	port   int
	server *testdaemon.Process
	milter *lab.Milter
	mta    mta
}

// openSite sets a domain up as its postmaster would, and publishes its record.
func openSite(ctx context.Context, w *lab.World, p programs, start startMTA, domain string, users ...string) (_ *site, err error) {
	o := &site{domain: domain, config: filepath.Join(w.Dir, domain, "server.yaml"), binary: p.server}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", domain, err), o.close())
		}
	}()
	attach, err := o.init(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := o.tool(ctx, append([]string{"address", "add"}, users...)...); err != nil {
		return nil, err
	}
	if err := o.serve(ctx); err != nil {
		return nil, err
	}
	if err := w.Publish(domain, lab.ASRecord(o.port, "req=yes")); err != nil {
		return nil, err
	}
	if _, err := o.tool(ctx, "dns", domain, "--resolver", w.DNS.Addr()); err != nil {
		return nil, err
	}
	// Keys are attached last, when everybody can verify them.
	if o.milter, err = w.StartMilter(ctx, p.milter, "unix", fmt.Sprintf(siteYAML, domain)+attach); err != nil {
		return nil, err
	}
	o.mta, err = start(ctx, domain, o.milter.Socket)
	return o, err
}

// close ends what lab.World does not.
func (o *site) close() (err error) {
	if o.mta != nil {
		err = o.mta.stop()
	}
	if o.server != nil {
		err = errors.Join(err, o.server.Stop())
	}
	return err
}

// init has authkey-server write the files of the domain, edits its configuration,
// and returns the section for the milter.
func (o *site) init(ctx context.Context) (attach string, err error) {
	out, err := o.tool(ctx, "init", o.domain, "--dir", filepath.Dir(o.config), "--host", "127.0.0.1", "--json")
	if err != nil {
		return "", err
	}
	var setup struct {
		Attach string `json:"milter_yaml_add"`
	}
	if err := json.Unmarshal(out, &setup); err != nil {
		return "", fmt.Errorf("authkey-server init: %w", err)
	}
	if o.port, err = testdaemon.FreePort(); err != nil {
		return "", err
	}
	return setup.Attach, edit(o.config, map[string]string{
		`# listen: ["tcp:7425"]`: fmt.Sprintf(`listen: ["tcp:127.0.0.1:%d"]`, o.port),
		`# ttl: 1h`:              "ttl: " + answerTTL,
	})
}

// edit replaces texts of a file, each of which it must have.
func edit(path string, texts map[string]string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content := string(b)
	for old, text := range texts {
		if !strings.Contains(content, old) {
			return fmt.Errorf("%s has no %q", path, old)
		}
		content = strings.Replace(content, old, text, 1)
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// serve starts the Authentication Server and returns when it has read its address list.
func (o *site) serve(ctx context.Context) (err error) {
	// Not ended with ctx: close does that.
	cmd := exec.Command(o.binary, "serve", "--config", o.config)
	if o.server, err = testdaemon.Start(cmd, filepath.Join(filepath.Dir(o.config), "server.log"), ""); err != nil {
		return err
	}
	return o.server.Ready(ctx, func() bool { return bytes.Contains(o.server.Log(), []byte("domain is served")) })
}

// revoke ends every key of an address, and has the server know at once.
func (o *site) revoke(ctx context.Context, address string) error {
	if _, err := o.tool(ctx, "address", "revoke", address); err != nil {
		return err
	}
	return syscall.Kill(o.server.Pid(), syscall.SIGHUP)
}

// key is the key that an address attaches now.
func (o *site) key(ctx context.Context, address string) (string, error) {
	out, err := o.tool(ctx, "key", address)
	return strings.TrimSpace(string(out)), err
}

// tool runs a command of authkey-server and returns its standard output.
func (o *site) tool(ctx context.Context, args ...string) ([]byte, error) {
	if args[0] != "init" {
		args = append(args, "--config", o.config)
	}
	cmd := exec.CommandContext(ctx, o.binary, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("authkey-server %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out, nil
}

// logs are what the site's programs have logged.
func (o *site) logs() map[string]string {
	return map[string]string{
		"the log of authkey-server at " + o.domain: string(o.server.Log()),
		"the log of authkey-milter at " + o.domain: o.milter.Log(),
		"the log of the MTA at " + o.domain:        o.mta.log(),
	}
}
