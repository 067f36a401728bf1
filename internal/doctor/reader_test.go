package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What a Reader says of a user is what the kernel does with a process of his.
func TestReader(t *testing.T) {
	if os.Getuid() != 0 {
		return // nobody else makes files of others
	}
	const uid, gid, extra = 65534, 65534, 12
	dir, err := os.MkdirTemp("", "authkey-reader-") // t.TempDir is closed to others
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	at := func(name string) string { return filepath.Join(dir, name) }
	folder := func(name string, mode os.FileMode) {
		must(t, os.Mkdir(at(name), mode))
		must(t, os.Chmod(at(name), mode))
	}
	file := func(name string, mode os.FileMode, owner, group int) {
		must(t, os.WriteFile(at(name), nil, mode))
		must(t, os.Chmod(at(name), mode))
		must(t, os.Chown(at(name), owner, group))
	}
	link := func(target, name string) { must(t, os.Symlink(target, at(name))) }
	folder("shut", 0o700)
	folder("open", 0o755)
	file("shut/world", 0o644, 0, 0)
	file("open/world", 0o644, 0, 0)
	file("open/root", 0o600, 0, 0)
	file("open/his", 0o400, uid, 0)
	file("open/not-his", 0o044, uid, 0) // the owner's bits are what counts for the owner
	file("open/group", 0o640, 0, gid)
	file("open/further-group", 0o640, 0, extra)
	file("open/other-group", 0o640, 0, 13)
	link("../shut/world", "open/into-shut")
	link("../open/world", "shut/out")
	link(at("shut"), "open/folder-into-shut")
	link("world", "open/link")
	link("link", "open/link-to-link")
	// The folders and links of certbot.
	folder("letsencrypt", 0o755)
	folder("letsencrypt/live", 0o700)
	folder("letsencrypt/live/as.example", 0o755)
	folder("letsencrypt/archive", 0o755) // somebody has opened this one only
	folder("letsencrypt/archive/as.example", 0o755)
	file("letsencrypt/archive/as.example/fullchain1.pem", 0o644, 0, 0)
	link("../../archive/as.example/fullchain1.pem", "letsencrypt/live/as.example/fullchain.pem")

	reader, err := NewReader("nobody", "12")
	must(t, err)
	shut := 0
	for name, folder := range map[string]string{
		"shut/world": "shut", "open/world": "", "open/root": "", "open/his": "", "open/not-his": "", "open/group": "", "open/further-group": "",
		"open/other-group": "", "open/into-shut": "shut", "shut/out": "shut", "open/folder-into-shut/world": "shut", "open/link": "", "open/link-to-link": "",
		"letsencrypt/live/as.example/fullchain.pem": "letsencrypt/live", "letsencrypt/archive/as.example/fullchain1.pem": "",
	} {
		cat := exec.Command("cat", at(name))
		cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: []uint32{gid, extra}}}
		may := cat.Run() == nil
		obstacle, err := reader.Read(at(name))
		if err != nil || (obstacle == nil) != may {
			t.Errorf("%s: the kernel lets him read: %v; judged: %+v, %v", name, may, obstacle, err)
		}
		if obstacle == nil {
			continue
		}
		shut++
		if want := "may not search the folder " + at(folder) + " "; folder != "" && !strings.HasPrefix(obstacle.What, want) {
			t.Errorf("%s: %s, want %s", name, obstacle.What, want)
		}
	}
	if shut != 8 {
		t.Errorf("%d are shut", shut)
	}
	link("loop", "loop")
	for _, name := range []string{"none", "loop", "open/world/x"} {
		if o, err := reader.Read(at(name)); err == nil {
			t.Errorf("%s: %+v", name, o)
		}
	}
}
