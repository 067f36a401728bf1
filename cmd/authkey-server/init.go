package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
)

// What init writes and prints, with {names} for what differs.
var (
	//go:embed server.yaml
	serverTemplate string
	//go:embed stanza.yaml
	stanzaTemplate string
)

const (
	// milterSocket is where authkey-milter listens by default. Its packages listen in
	// Postfix's queue directory too, where a chrooted smtpd finds it.
	milterSocket = "/run/authkey/milter.sock"

	postfixLine  = "smtpd_milters = unix:authkey/milter.sock"
	sendmailLine = "INPUT_MAIL_FILTER(`authkey', `S=local:" + milterSocket + ", F=T, T=S:30s;R:30s;E:60s')dnl"
)

func newInit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init DOMAIN",
		Short: "Make the files of a domain and say what to do next",
		Long: "Write a secret and an address list for DOMAIN, and server.yaml where there is none\n" +
			"yet, and print what else there is to do. Nothing is ever overwritten: what exists\n" +
			"is kept, and for a server.yaml that has other domains the part to add is printed.\n" +
			"New files belong to the owner of the folder that they are in.",
		Args: cobra.ExactArgs(1),
	}
	dir := cmd.Flags().String("dir", filepath.Dir(this().DefaultConfig), "`folder` of the files")
	host := cmd.Flags().String("host", "", "name or address of this server for the record (default the machine's name, else as.DOMAIN)")
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		domain, err := wire.ParseDomain(args[0])
		if err != nil {
			return program.Exit(program.Usage, fmt.Errorf("%q: %w", args[0], err))
		}
		set, err := planSetup(cmd, domain, *dir, *host)
		if err != nil {
			return err
		}
		if err := set.write(); err != nil {
			return program.Exit(program.Temp, err)
		}
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(set)
		}
		return set.print(cmd.OutOrStdout())
	}
	return cmd
}

// A setup is everything that a new domain needs.
type setup struct {
	Domain   string      `json:"domain"`
	Files    []setupFile `json:"files"`
	Stanza   string      `json:"server_yaml_add,omitempty"` // for the server.yaml that there is
	Records  []string    `json:"records"`                   // as a zone file has them
	Firewall string      `json:"firewall"`
	Attach   string      `json:"milter_yaml_add"`
	Postfix  string      `json:"postfix"`
	Sendmail string      `json:"sendmail"`
	Steps    []string    `json:"steps"`
}

// A setupFile is a file and what became of it.
type setupFile struct {
	Path  string `json:"path"`
	State string `json:"state"` // written or kept

	folderMode fs.FileMode // of a new folder
	create     func(path string) error
}

// planSetup works out the setup of a domain. It writes nothing.
func planSetup(cmd *cobra.Command, domain, dir, hostFlag string) (*setup, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, program.Exit(program.Usage, err)
	}
	yaml := filepath.Join(dir, "server.yaml")
	old, err := existingConfig(yaml)
	if err != nil {
		return nil, program.Refuse(cmd, err)
	}
	d := config.ServerDomain{
		Name:       domain,
		SecretFile: filepath.Join(dir, "credentials", domain+".secret"),
		Addresses:  "file:" + filepath.Join(dir, "addresses", domain),
		AVT:        keyring.DefaultAVT,
		Subaddress: "+",
	}
	current, has := config.Server{}, false
	if old == nil {
		current, err = defaultConfig()
	} else {
		current = old.Config
		if known, ok := domainOf(old, domain); ok {
			d, has = known, true
		}
	}
	if err != nil {
		return nil, program.Refuse(cmd, err)
	}
	host, err := setupHost(hostFlag, current, domain)
	if err != nil {
		return nil, err
	}
	set := &setup{Domain: domain, Attach: attachSection(d), Postfix: postfixLine, Sendmail: sendmailLine, Steps: setupSteps(domain, host, yaml)}
	fill := strings.NewReplacer("{domain}", domain, "{host}", strconv.Quote(host), "{secret}", quoted(d.SecretFile), "{list}", quoted(d.Addresses)).Replace
	stanza := fill(stanzaTemplate)
	contents := strings.ReplaceAll(fill(serverTemplate), "{stanza}\n", stanza)
	if old != nil && !has {
		set.Stanza = stanza
	}
	set.addFiles(d, yaml, contents)
	records := wantedRecords(host, current.Listen)
	for _, r := range records {
		set.Records = append(set.Records, zoneLine(domain, r))
	}
	set.Firewall = firewallLine(records)
	return set, nil
}

// addFiles says which files there are to be. server.yaml is the last to be written:
// while it is not there, the same command does the rest again.
func (s *setup) addFiles(d config.ServerDomain, yaml, contents string) {
	s.Files = append(s.Files, setupFile{Path: d.SecretFile, folderMode: 0o700, create: func(path string) error {
		_, err := keyring.CreateSecret(path)
		return err
	}})
	if list, err := listFile(d); err == nil {
		s.Files = append(s.Files, setupFile{Path: list.Path, folderMode: 0o755, create: func(string) error { return list.Create() }})
	}
	s.Files = append(s.Files, setupFile{Path: yaml, folderMode: 0o755, create: func(path string) error { return createText(path, contents) }})
}

// attachSection is the part of milter.yaml that derives the same keys.
func attachSection(d config.ServerDomain) string {
	var b strings.Builder
	fmt.Fprintf(&b, "attach:\n  domains:\n    - domain: %s\n      source: %s\n      addresses: %s\n", d.Name, quoted("secret:"+d.SecretFile), quoted(d.Addresses))
	if d.AVT != keyring.DefaultAVT {
		fmt.Fprintf(&b, "      avt: %s\n", d.AVT)
	}
	if d.CaseSensitive {
		b.WriteString("      case_sensitive: true\n")
	}
	if d.Subaddress != "+" {
		fmt.Fprintf(&b, "      subaddress: %q\n", d.Subaddress)
	}
	return b.String()
}

// existingConfig reads a server.yaml; nil if there is none.
func existingConfig(path string) (*config.LoadedServer, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return config.LoadServer(path, nil)
}

func defaultConfig() (config.Server, error) {
	loaded, err := config.LoadServer("", nil)
	if err != nil {
		return config.Server{}, err
	}
	return loaded.Config, nil
}

// setupHost is hostName, or a name that can be made in the domain.
func setupHost(flag string, c config.Server, domain string) (string, error) {
	if flag == "" && c.Host == "" && machineName() == "" {
		flag = "as." + domain
	}
	return hostName(flag, c)
}

// quoted is a text as YAML needs it: in quotes only where it has to be.
func quoted(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:"
	if strings.Trim(s, plain) == "" && !strings.HasSuffix(s, ":") {
		return s
	}
	return strconv.Quote(s)
}

func firewallLine(records []wire.Record) string {
	ports := make([]string, len(records))
	for i, r := range records {
		ports[i] = strconv.Itoa(int(r.Port))
	}
	list := strings.Join(ports, ", ")
	if len(ports) != 1 {
		list = "{ " + list + " }"
	}
	return "nft add rule inet filter input tcp dport " + list + " accept"
}

// setupSteps are in this order because a key must be verifiable before anybody
// attaches it.
func setupSteps(domain, host, yaml string) []string {
	address := ""
	if _, err := netip.ParseAddr(host); err != nil {
		address = host + " must have an address; "
	}
	return []string{
		"authkey-server address add you@" + domain + " (and everybody else), authkey-server check, and start authkey-server serve --config " + yaml,
		address + "open the port and publish the record, then see that authkey-server dns " + domain + " finds it",
		"add the attach section to milter.yaml on the machines that your users send through, and restart authkey-milter",
	}
}

// write makes the files that are not there.
func (s *setup) write() error {
	for i := range s.Files {
		f := &s.Files[i]
		if err := makeFolder(filepath.Dir(f.Path), f.folderMode); err != nil {
			return err
		}
		switch err := f.create(f.Path); {
		case errors.Is(err, fs.ErrExist):
			f.State = "kept"
			continue
		case err != nil:
			return err
		}
		f.State = "written"
		if err := adopt(f.Path); err != nil {
			return err
		}
	}
	return nil
}

func createText(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// makeFolder makes a folder and those above it.
func makeFolder(path string, mode fs.FileMode) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := makeFolder(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil {
		return err
	}
	return adopt(path)
}

// adopt gives what root made to the owner of the folder that it is in, so that the
// server's user can read it.
func adopt(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}

func (s *setup) print(w io.Writer) error {
	var b strings.Builder
	for _, f := range s.Files {
		fmt.Fprintf(&b, "%-8s %s\n", f.State, f.Path)
	}
	part := func(title, text string) {
		fmt.Fprintf(&b, "\n%s:\n\n%s\n", title, strings.TrimRight(text, "\n"))
	}
	if s.Stanza != "" {
		part("Add to the domains of "+s.Files[len(s.Files)-1].Path, s.Stanza)
	}
	part("TXT record to publish", strings.Join(s.Records, "\n"))
	part("Firewall, in whatever way you write it", s.Firewall)
	part("Part of milter.yaml for the machines that your users send through", s.Attach)
	part("Postfix, main.cf there, which authkey-milter setup postfix --apply writes", s.Postfix)
	part("Sendmail, sendmail.mc there", s.Sendmail)
	b.WriteString("\nNext:\n\n")
	for i, step := range s.Steps {
		fmt.Fprintf(&b, "%d. %s\n", i+1, step)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
