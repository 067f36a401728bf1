package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
)

const (
	serviceUnit = "authkey-server.service"
	// packagedUser is as whom the packages run the service.
	packagedUser = "authkey-server"
)

// A serviceUser is the user of the service, who need not be the one that runs a command.
type serviceUser struct {
	*doctor.Reader // nil: nobody else than who runs the command
	unit           doctor.Unit
	how            string // it is known
}

// addUser gives a command the flag --user.
func addUser(cmd *cobra.Command) *string {
	return cmd.Flags().String("user", "", "`name` of the service's user")
}

// findServiceUser finds the service's user: by the flag, by the unit, or by the packages.
// Only root gets an answer: for other users, trying to read a file shows more. The error
// ends the program.
func findServiceUser(ctx context.Context, flag string) (serviceUser, error) {
	s := serviceUser{unit: doctor.FindUnit(ctx, serviceUnit)}
	name := flag
	switch {
	case flag != "":
		s.how = "--user"
	case os.Geteuid() != 0:
		return s, nil
	case s.unit.Known:
		name, s.how = s.unit.User, "User= of "+serviceUnit
	default:
		if _, err := user.Lookup(packagedUser); err != nil {
			return s, nil
		}
		name, s.how = packagedUser, "the user that the packages make"
	}
	var groups []string
	if flag == "" {
		groups = s.unit.Groups
	}
	reader, err := doctor.NewReader(name, groups...)
	if err != nil {
		return s, program.Exit(program.Config, fmt.Errorf("the service's user (%s): %w", s.how, err))
	}
	s.Reader = &reader
	return s, nil
}

// cannotRead says what keeps the service from a file; empty: nothing, or it cannot be
// told.
func (s serviceUser) cannotRead(path string) (why, mend string) {
	if s.Reader == nil {
		return "", ""
	}
	obstacle, err := s.Read(path)
	if err != nil || obstacle == nil { // a file that is not there is somebody else's fault
		return "", ""
	}
	return fmt.Sprintf("%s, the service's user (%s), %s", s.Name, s.how, obstacle.What), obstacle.Mend
}

// judgesSecrets tells whether the service has to read secret files itself. Where its unit
// is not known, systemd may pass them.
func (s serviceUser) judgesSecrets(path string) bool {
	return (s.unit.Known || s.how == "--user") && !s.unit.Passes(path)
}

// readingFaults are the files of a configuration, and the configuration, that the service
// cannot read.
func (s serviceUser) readingFaults(loaded *config.LoadedServer) config.Faults {
	var faults config.Faults
	look := func(key, path, mend string) {
		why, open := s.cannotRead(path)
		if why == "" {
			return
		}
		if mend == "" {
			mend = strings.ReplaceAll(open, "\n", " && ")
		}
		faults = append(faults, loaded.Fault(key, why, mend))
	}
	if path, err := filepath.Abs(loaded.Path); err == nil && loaded.Path != "" && path == s.unit.ConfigFile(self().DefaultConfig) {
		look("", path, "")
	}
	for i, d := range loaded.Config.Domains {
		if path := keyring.Credential(d.SecretFile); path == d.SecretFile && s.judgesSecrets(path) {
			look(fmt.Sprintf("domains[%d].secret_file", i), path, "chown "+s.userName()+" "+path+", or LoadCredential= in the unit")
		}
		if list, err := listFile(d); err == nil {
			look(fmt.Sprintf("domains[%d].addresses", i), list.Path, "")
		}
	}
	const copies = "copies that it may read: docs/server.md, TLS, or authkey-server(8)"
	if tls := loaded.Config.TLS; tls.Cert != "" {
		look("tls.cert", tls.Cert, copies)
		look("tls.key", tls.Key, copies)
	}
	return faults
}

// keyWarning says that others than root and the service can get at the private key of the
// certificate; empty: nobody can, or it cannot be told.
func (s serviceUser) keyWarning(loaded *config.LoadedServer) string {
	path := loaded.Config.TLS.Key
	if s.Reader == nil || path == "" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil || s.OnlyOwnerAnd(info) {
		return ""
	}
	return "tls.key: " + openKey(path, info.Mode())
}

func (s serviceUser) userName() string {
	if s.Reader == nil {
		return packagedUser
	}
	return s.Name
}
