package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/terminal"
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
		Long: "Write a secret and an address list for DOMAIN, and put the domain into server.yaml,\n" +
			"which is made where there is none. What exists is kept: of a server.yaml every\n" +
			"octet stays, and the domain is added to its list. Then print what else there is to\n" +
			"do. Run it again to see that again. New files belong to the owner of the folder\n" +
			"that they are in. --host is kept in server.yaml; where neither says the host, it is\n" +
			"the machine's name, or as.DOMAIN.\n\n" +
			"Exit code 0: done; 2: the command line, or --host where server.yaml says another;\n" +
			"75: a file cannot be written now; 78: there is a server.yaml that is bad.",
		Args: cobra.ExactArgs(1),
	}
	dir := cmd.Flags().String("dir", filepath.Dir(self().DefaultConfig), "`folder` of the files")
	host := cmd.Flags().String("host", "", "`name` or address of this server for the records")
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("config") {
			return program.Exit(program.Usage, errors.New("init makes server.yaml in the folder --dir, and takes no --config"))
		}
		domain, err := wire.ParseDomain(args[0])
		if err != nil {
			return program.Exit(program.Usage, fmt.Errorf("%q: %w", args[0], err))
		}
		set, err := planSetup(cmd, domain, *dir, *host)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), lockTimeout)
		defer cancel()
		if err := set.write(ctx); err != nil {
			return program.Exit(program.Temp, err)
		}
		return program.Print(cmd, *asJSON, set, set.print)
	}
	return cmd
}

// A setup is everything that a new domain needs.
type setup struct {
	Domain   string      `json:"domain"`
	Files    []setupFile `json:"files"`
	Stanza   string      `json:"server_yaml_add,omitempty"` // for a server.yaml that is not added to
	Records  []string    `json:"records"`                   // as a zone file has them
	Firewall string      `json:"firewall"`
	Attach   string      `json:"milter_yaml_add"` // of all domains
	Postfix  string      `json:"postfix"`
	Sendmail string      `json:"sendmail"`
	Steps    []setupStep `json:"steps"`

	yaml string // the path of server.yaml
}

// A setupFile is a file and what became of it.
type setupFile struct {
	Path  string `json:"path"`
	State string `json:"state"` // written, changed or kept

	folderMode fs.FileMode // of a new folder
	mode       fs.FileMode
	create     func(path string) error
	change     func(path string) (changed bool, err error) // of a file that is there; nil: it is kept
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
	current, err := currentConfig(old)
	if err != nil {
		return nil, program.Refuse(cmd, err)
	}
	host, keepHost, err := setupHost(hostFlag, yaml, current, domain)
	if err != nil {
		return nil, err
	}
	d, known := setupDomain(old, domain, dir)
	all := current.Domains
	if !known {
		all = append(all[:len(all):len(all)], d)
	}
	set := &setup{Domain: domain, Attach: attachSection(all), Postfix: postfixLine, Sendmail: sendmailLine, yaml: yaml}
	fill := strings.NewReplacer("{domain}", domain, "{host}", strconv.Quote(host), "{secret}", quoted(d.SecretFile), "{list}", quoted(d.Addresses)).Replace
	stanza := fill(stanzaTemplate)
	contents := strings.ReplaceAll(fill(serverTemplate), "{stanza}\n", stanza)
	add := config.ServerAddition{}
	if keepHost {
		add.Host = host
	}
	if !known {
		add.Item = outdented(stanza)
		add.FlowItem = fmt.Sprintf("{name: %s, secret_file: %q, addresses: %q}", domain, d.SecretFile, d.Addresses)
	}
	if old != nil {
		if set.Stanza, err = byHand(yaml, add, stanza); err != nil {
			return nil, program.Refuse(cmd, err)
		}
	}
	set.addFiles(d, contents, add)
	records := wantedRecords(host, current.Listen)
	for _, r := range records {
		set.Records = append(set.Records, zoneLine(domain, r))
	}
	set.Firewall = firewallLine(records)
	set.Steps = setupSteps(cmd.Context(), d, host, yaml, !known && len(current.Domains) > 0, set.Stanza != "")
	return set, nil
}

// byHand is what has to be added to server.yaml by hand: the stanza where the file is
// written in a way in which it cannot be added to, else nothing.
func byHand(yaml string, add config.ServerAddition, stanza string) (string, error) {
	if add == (config.ServerAddition{}) {
		return "", nil
	}
	text, err := os.ReadFile(yaml)
	if err != nil {
		return "", err
	}
	_, err = config.EditServer(yaml, text, add)
	if !errors.Is(err, config.ErrEditByHand) {
		return "", err
	}
	if add.Host != "" {
		stanza = "host: " + strconv.Quote(add.Host) + "\ndomains:\n" + stanza
	}
	return stanza, nil
}

// outdented takes two blanks off every line.
func outdented(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		b.WriteString(strings.TrimPrefix(line, "  "))
	}
	return b.String()
}

// addFiles says which files there are to be. server.yaml is the last to be written:
// while it does not have the domain, the same command does the rest again.
func (s *setup) addFiles(d config.ServerDomain, contents string, add config.ServerAddition) {
	s.Files = append(s.Files, setupFile{Path: d.SecretFile, folderMode: 0o700, mode: 0o600, create: func(path string) error {
		_, err := keyring.CreateSecret(path)
		return err
	}})
	if list, err := listFile(d); err == nil {
		s.Files = append(s.Files, setupFile{Path: list.Path, folderMode: 0o755, mode: 0o640, create: func(path string) error {
			return keyring.ListFile{Path: path, Form: list.Form}.Create()
		}})
	}
	file := setupFile{Path: s.yaml, folderMode: 0o755, mode: 0o644, create: func(path string) error { return createText(path, contents) }}
	if s.Stanza == "" {
		file.change = func(path string) (bool, error) { return addToServer(path, s.Domain, add) }
	}
	s.Files = append(s.Files, file)
}

// addToServer adds to a server.yaml what it does not have: it may have been made since it
// was looked at. The lock is held.
func addToServer(path, domain string, add config.ServerAddition) (changed bool, err error) {
	now, err := config.LoadServer(path, nil)
	if err != nil {
		return false, err
	}
	if _, known := domainOf(now, domain); known {
		add.Item = ""
	}
	if now.Config.Host != "" {
		add.Host = ""
	}
	if add.Item == "" && add.Host == "" {
		return false, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	edited, err := config.EditServer(path, text, add)
	if err != nil {
		return false, err
	}
	return true, diskfile.ReplaceData(path, edited)
}

// attachSection is the part of milter.yaml that derives the same keys.
func attachSection(domains []config.ServerDomain) string {
	var b strings.Builder
	b.WriteString("attach:\n  domains:\n")
	for _, d := range domains {
		fmt.Fprintf(&b, "    - domain: %s\n      source: %s\n      addresses: %s\n", d.Name, quoted("secret:"+d.SecretFile), quoted(d.Addresses))
		if d.AVT != keyring.DefaultAVT {
			fmt.Fprintf(&b, "      avt: %s\n", d.AVT)
		}
		if d.CaseSensitive {
			b.WriteString("      case_sensitive: true\n")
		}
		if d.Subaddress != "+" {
			fmt.Fprintf(&b, "      subaddress: %q\n", d.Subaddress)
		}
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

// setupDomain is the domain as the configuration has it, or as it is to be.
func setupDomain(old *config.LoadedServer, domain, dir string) (d config.ServerDomain, known bool) {
	if old != nil {
		if d, known = domainOf(old, domain); known {
			return d, true
		}
	}
	return config.ServerDomain{
		Name:       domain,
		SecretFile: filepath.Join(dir, "credentials", domain+".secret"),
		Addresses:  "file:" + filepath.Join(dir, "addresses", domain),
		AVT:        keyring.DefaultAVT,
		Subaddress: "+",
	}, false
}

// currentConfig is the configuration that there is, or the defaults.
func currentConfig(old *config.LoadedServer) (config.Server, error) {
	if old != nil {
		return old.Config, nil
	}
	loaded, err := config.LoadServer("", nil)
	if err != nil {
		return config.Server{}, err
	}
	return loaded.Config, nil
}

// setupHost is hostName, or a name that can be made in the domain. keep tells that
// server.yaml does not say it and has to, for the commands that come after.
func setupHost(flag, yaml string, c config.Server, domain string) (host string, keep bool, err error) {
	if flag == "" && c.Host == "" && machineName() == "" {
		flag = "as." + domain
	}
	if host, err = hostName(flag, c); err != nil {
		return "", false, err
	}
	if flag == "" || c.Host == "" {
		return host, flag != "", nil
	}
	if said, err := hostName("", c); err != nil || said != host {
		return "", false, program.Exit(program.Usage, fmt.Errorf("--host %s: %s says host: %s, which is for all its domains; change it there", flag, yaml, c.Host))
	}
	return host, false, nil
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

// write makes the files that are not there, and adds to server.yaml. Another init waits.
func (s *setup) write(ctx context.Context) error {
	if err := makeFolder(filepath.Dir(s.yaml), 0o755); err != nil {
		return err
	}
	unlock, err := diskfile.Lock(ctx, s.yaml)
	if err != nil {
		return err
	}
	defer unlock()
	for i := range s.Files {
		if err := s.Files[i].write(); err != nil {
			return err
		}
	}
	return nil
}

func (f *setupFile) write() error {
	if err := makeFolder(filepath.Dir(f.Path), f.folderMode); err != nil {
		return err
	}
	err := diskfile.Place(f.Path, f.mode, f.create)
	if err == nil {
		f.State = "written"
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	f.State = "kept"
	if f.change == nil {
		return nil
	}
	changed, err := f.change(f.Path)
	if changed {
		f.State = "changed"
	}
	return err
}

func createText(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
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
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		return err
	}
	return diskfile.Adopt(path)
}

// stepWidth is how wide the text of a step is, in columns. It fits any terminal, and does
// not change with it, so that what is kept of the output can be compared.
const stepWidth = 80

func (s *setup) print(w io.Writer) {
	for _, f := range s.Files {
		fmt.Fprintf(w, "%-8s %s\n", f.State, f.Path)
	}
	part := func(title, text string) {
		fmt.Fprintf(w, "\n%s:\n\n%s\n", title, strings.TrimRight(text, "\n"))
	}
	if s.Stanza != "" {
		part("Add to the domains of "+s.yaml+", which is written in a way that is not added to automatically", s.Stanza)
	}
	part("TXT record to publish", strings.Join(s.Records, "\n"))
	part("Firewall, in whatever way you write it", s.Firewall)
	part("Part of milter.yaml for the machines that your users send through, all domains", s.Attach)
	part("Postfix, main.cf there, which authkey-milter setup postfix --apply writes", s.Postfix)
	part("Sendmail, sendmail.mc there", s.Sendmail)
	fmt.Fprint(w, "\nNext:\n\n")
	for i, step := range s.Steps {
		text := fmt.Sprintf("%d. %s%s", i+1, step.Text, map[bool]string{true: ":", false: "."}[len(step.Commands) > 0])
		fmt.Fprintln(w, strings.Join(terminal.Wrap(text, stepWidth, stepWidth-3), "\n   "))
		for _, command := range step.Commands {
			fmt.Fprintf(w, "       %s\n", command)
		}
	}
}
