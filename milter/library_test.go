package milter

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"
)

// bareLibrary in the environment makes this test program a filter on go-milter by
// itself, without our connection under it.
const bareLibrary = "AUTHKEY_TEST_BARE_LIBRARY"

// serveBareLibrary never returns.
func serveBareLibrary() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(ln.Addr())
	srv := gomilter.NewServer(gomilter.WithMilter(func() gomilter.Milter { return gomilter.NoOpMilter{} }))
	_ = srv.Serve(ln)
	os.Exit(0)
}

// killers are frames that end a process which lets them through to the library.
var killers = []struct {
	name   string
	frames [][]byte
}{
	{"length 0 before negotiation", [][]byte{{0, 0, 0, 0}}},
	{"length 0 after negotiation", [][]byte{optNeg(), {0, 0, 0, 0}}},
	{"host without terminator", [][]byte{optNeg(), frame('C', "host")}},
	{"host and nothing after", [][]byte{optNeg(), frame('C', "host\x00")}},
	{"MAIL without terminator", [][]byte{optNeg(), frame('M', "<a@b.test>")}},
	{"RCPT without terminator", [][]byte{optNeg(), frame('R', "<b@b.test>")}},
}

// TestTheBareLibraryDies shows what conn.go is for. Should a later version of the
// library survive one of these, this test says so, and conn.go may do less.
func TestTheBareLibraryDies(t *testing.T) {
	for _, tt := range killers {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), bareLibrary+"=1", "GOTRACEBACK=none")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			addr, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", strings.TrimSpace(addr))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, f := range tt.frames {
				if _, err := c.Write(f); err != nil {
					t.Fatal(err)
				}
			}
			ended := make(chan error, 1)
			go func() {
				_, err := cmd.Process.Wait()
				ended <- err
			}()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(patience):
				t.Error("the library by itself survives")
			}
		})
	}
}
