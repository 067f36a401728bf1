package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// openDir is a folder that every user may come into, which t.TempDir is not.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "authkey-open-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// certbotFolder lays a pair out as certbot does, with its modes and links: live/NAME holds
// links into archive/NAME, and neither is for others.
func certbotFolder(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	for _, folder := range []string{"live", "archive"} {
		if err := os.MkdirAll(filepath.Join(dir, folder, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(dir, "archive", name)
	writePair(t, archive, 1)
	for file, link := range map[string]string{"cert.pem": "fullchain", "key.pem": "privkey"} {
		if err := os.Rename(filepath.Join(archive, file), filepath.Join(archive, link+"1.pem")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../archive/"+name+"/"+link+"1.pem", filepath.Join(dir, "live", name, link+".pem")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(archive, "fullchain1.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "live", name, "fullchain.pem"), filepath.Join(dir, "live", name, "privkey.pem")
}

// check says what the service's user cannot read, though root can; and that user's own
// check agrees.
func TestCheckJudgesForTheService(t *testing.T) {
	if os.Getuid() != 0 {
		return // nobody else reads what others cannot
	}
	const nobody = 65534
	dir := openDir(t)
	mustRun(t, "init", "example.com", "--host", "127.0.0.1", "--dir", dir)
	file := filepath.Join(dir, "server.yaml")
	secret, list := filepath.Join(dir, "credentials/example.com.secret"), filepath.Join(dir, "addresses/example.com")
	cert, key := certbotFolder(t, filepath.Join(dir, "letsencrypt"), "as.example.com")
	writeFile(t, file, readFile(t, file)+"listen: ['tls:7425']\ntls: {cert: "+cert+", key: "+key+"}\n", 0o644)
	chown := func(path string, uid int) {
		t.Helper()
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "authkey-server")
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	// expect checks as root for the service, and as the service's user.
	expect := func(keys ...string) {
		t.Helper()
		code, _, errOut := run(t, "", "check", "--config", file, "--user", "nobody")
		var named []string
		for line := range strings.Lines(errOut) {
			if !strings.Contains(line, "nobody, the service's user (--user), may not ") {
				t.Errorf("%s", line)
			}
			named = append(named, strings.SplitN(line, ": ", 3)[1])
		}
		if strings.Join(named, " ") != strings.Join(keys, " ") || (code == 0) != (len(keys) == 0) {
			t.Errorf("exit %d, %q, want %q", code, named, keys)
		}
		cmd := programCommand(nil, program, "check", "--config", file)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		out, err := cmd.CombinedOutput()
		if (err == nil) != (len(keys) == 0) {
			t.Errorf("his own check: %v\n%s", err, out)
		}
	}
	expect("domains[0].secret_file", "domains[0].addresses", "tls.cert", "tls.key")
	chown(list, nobody)
	chown(filepath.Dir(secret), nobody)
	chown(secret, nobody)
	expect("tls.cert", "tls.key")
	// What is copied to him, he has.
	tls := filepath.Join(dir, "tls")
	for _, args := range [][]string{{"-d", "-g", "nogroup", "-m", "0750", tls}, {"-g", "nogroup", "-m", "0640", "-t", tls, cert, key}} {
		if out, err := exec.Command("install", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	writeFile(t, file, strings.ReplaceAll(readFile(t, file), filepath.Dir(cert), tls), 0o644)
	expect()
	// And nobody else.
	open := filepath.Join(tls, filepath.Base(key))
	for mode, warned := range map[os.FileMode]bool{0o640: false, 0o644: true, 0o660: true} {
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		code, _, errOut := run(t, "", "check", "--config", file, "--user", "nobody")
		if code != 0 || strings.Contains(errOut, "warning: tls.key: private key "+open) != warned {
			t.Errorf("mode %o: exit %d, %s", mode, code, errOut)
		}
	}
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	// A list that an editor with umask 077 has saved anew.
	if err := os.Chmod(list, 0o600); err != nil {
		t.Fatal(err)
	}
	chown(list, 0)
	expect("domains[0].addresses")

	code, _, errOut := run(t, "", "check", "--config", file, "--user", "nobody-at-all")
	if code != 78 || !strings.Contains(errOut, "the service's user (--user): there is no user") {
		t.Errorf("exit %d, %s", code, errOut)
	}
}
