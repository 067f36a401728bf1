package design

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/front"
	"github.com/authkey/authkey/internal/lab"
)

// TestOutside builds a program as a module of its own, which knows the three public
// packages alone, and has it verify keys, read records, decide a message and serve an MTA.
func TestOutside(t *testing.T) {
	dir := t.TempDir()
	program := buildOutside(t, dir)

	w, err := lab.NewWorld()
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	must(t, w.AddDomain("sender.test", "alice"))
	port, _, err := w.ServeAS("sender.test")
	must(t, err)
	must(t, w.Publish("sender.test", lab.ASRecord(port, "req=yes"), "AS=as.sender.test"))
	key, err := w.Key("alice@sender.test")
	must(t, err)

	socket := filepath.Join(dir, "milter.sock")
	cmd := exec.Command(program, w.DNS.Addr(), "alice@sender.test", key, socket)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	stop, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	outcome := deliver(ctx, t, socket, ended, &errOut, key)
	if got := string(outcome.Bytes()); outcome.Verdict != front.Delivered || strings.Contains(got, key) ||
		!strings.HasPrefix(got, "Authentication-Results: mx.outside.test;\r\n\tx-authkey=pass smtp.mailfrom=alice@sender.test") {
		t.Errorf("%s:\n%s", outcome.Verdict, got)
	}
	must(t, stop.Close())
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, &errOut)
	}
	want := fmt.Sprintf(`right key: pass
another key: fail invalid-key
no address: none no-domain
sender.test requires keys: true
an AS at 127.0.0.1:%d, TLS: false
refused: "AS=as.sender.test"
the message: mark, bob@outside.test: mark, carol@outside.test: reject
`, port)
	if out.String() != want {
		t.Errorf("it says\n%s\nand not\n%s", &out, want)
	}
}

// deliver sends a message with the key as soon as the program listens.
func deliver(ctx context.Context, t *testing.T, socket string, ended <-chan error, errOut *bytes.Buffer, key string) front.Outcome {
	t.Helper()
	for {
		mta, err := front.Dial(ctx, "unix", socket, "mx.outside.test")
		if err == nil {
			outcome, err := mta.Send(front.Message{
				QueueID: "4711", Client: netip.MustParseAddr("192.0.2.1"), Sender: "alice@sender.test", Recipients: []string{"bob@outside.test"},
				Header: []front.Field{{Name: "From", Value: "alice@sender.test"}, {Name: "X-Auth-Key", Value: key}}, Body: "Hello\r\n",
			})
			must(t, err)
			must(t, mta.Close())
			return outcome
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case err := <-ended:
			t.Fatalf("the program ended: %v\n%s", err, errOut)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// buildOutside builds the program in a module of its own.
func buildOutside(t *testing.T, dir string) (program string) {
	t.Helper()
	tree, err := filepath.Abs(root)
	must(t, err)
	source, err := os.ReadFile("testdata/outside/main.go")
	must(t, err)
	if strings.Contains(string(source), "/internal/") {
		t.Fatal("the program imports an internal package")
	}
	own, err := os.ReadFile(filepath.Join(root, "go.mod"))
	must(t, err)
	// Its requirements are ours, so that nothing has to be fetched.
	mod := strings.Replace(string(own), "module "+module+"\n", "module outside.example/program\n\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+tree+"\n", 1)
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	must(t, err)
	for name, content := range map[string][]byte{"main.go": source, "go.mod": []byte(mod), "go.sum": sums} {
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o644))
	}
	program = filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-mod=mod", "-o", program, ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
