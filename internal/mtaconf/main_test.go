package mtaconf

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testmta"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	if err := testmta.EnsurePostfix(ctx, say); err != nil {
		say("%v", err)
		return 1
	}
	return m.Run()
}

// A site is the configuration of a Postfix that does not run.
type site struct {
	dir, queue string
	options    Options
}

// newSite writes main.cf and master.cf. In main and master, QUEUE stands for the
// queue directory. Our socket is authkey/milter.sock below it.
func newSite(t *testing.T, main, master string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{dir: filepath.Join(dir, "etc"), queue: filepath.Join(dir, "queue")}
	must(t, os.Mkdir(s.dir, 0o755))
	must(t, os.Mkdir(s.queue, 0o755))
	s.write(t, "main.cf", "compatibility_level = 3.6\nqueue_directory = "+s.queue+"\n"+main)
	s.write(t, "master.cf", master)
	conf := filepath.Join(dir, "opendkim.conf")
	must(t, os.WriteFile(conf, []byte("# Mode s\nMode   sv\n"), 0o644))
	s.options = Options{ConfigDir: s.dir, Daemons: []string{"ORIGINATING"}, OpenDKIMConf: conf,
		Ours: Ours{Sockets: []Socket{{"unix", s.queue + "/authkey/milter.sock"}}}}
	return s
}

func (s *site) write(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o644))
}

// age makes the files old: Postfix's programs wait for two seconds before they
// believe a file that was just written.
func (s *site) age(t *testing.T) {
	t.Helper()
	past := time.Now().Add(-time.Minute)
	for _, name := range []string{"main.cf", "master.cf"} {
		must(t, os.Chtimes(filepath.Join(s.dir, name), past, past))
	}
}

func (s *site) content(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	must(t, err)
	return string(b)
}

func (s *site) read(t *testing.T) *Postfix {
	t.Helper()
	s.age(t)
	p, err := ReadPostfix(t.Context(), s.options)
	must(t, err)
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
