package main

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/fromfield"
	"github.com/authkey/authkey/internal/wire"
)

// What reading a From field may cost.
const (
	fromEveryday = 1.0 // times net/mail, which reads well-formed fields only
	fromGrowth   = 2.2 // twice the octets, times the time
	fromRuns     = 9
)

// fromFields are forms of everyday mail that are read in whole.
var fromFields = []string{
	`"Adams, Alice" <alice@ok.test>`, "Alice A. Adams <alice@ok.test>", "alice@ok.test (Alice Adams)", `"ACME Support" <support+123@mail.ok.test>`,
	"=?utf-8?q?Andr=C3=A9?= =?utf-8?b?TcO8bGxlcg==?= <andre@ok.test>", "Alice Adams <alice@ok.test>", "=?UTF-8?B?5pel5pys6Kqe?= <taro@ok.test>",
}

// fromPatterns are what, repeated, is the most work to read.
var fromPatterns = []string{
	"a@b.cc ", "@", "(", "(a)", "((a)", `"`, `"a" `, "=?a?q?b?= ", "=?a?q?", "\x1b$B", "\x1b$Ba\x1b(B", `\"`, "<a@b>", "<a@", "@[", "a.", "ä", "\u200b",
	"@ä.b", "a@b,", "a%b", "a!b!", "\u202ea@b.c\u202c", "a ", "=?utf-7?q?+AEAAQA-?= ", `("<@(=?a?b?YUBi?=`, "@a.b.c",
}

// runFrom measures the reading of From fields.
func runFrom(_ context.Context, b *bench) error {
	runs := max(b.runs, fromRuns)
	const many = 20_000
	var ours, theirs []float64
	for range runs {
		ours = append(ours, timed(many, func() {
			for _, v := range fromFields {
				readFrom(v)
			}
		}))
		theirs = append(theirs, timed(many, func() {
			for _, v := range fromFields {
				readByLibrary(v)
			}
		}))
	}
	b.atMost("reading an everyday From field, times net/mail", median(ours)/median(theirs), fromEveryday, "")

	worst, of := 0.0, ""
	for _, p := range fromPatterns {
		half, whole := strings.Repeat(p, fromfield.MaxOctets/2/len(p)), strings.Repeat(p, fromfield.MaxOctets/len(p))
		var short, long []float64
		for range runs {
			short = append(short, timed(10, func() { readFrom(half) }))
			long = append(long, timed(10, func() { readFrom(whole) }))
		}
		// The least of each: what disturbs a run only adds to it.
		if growth := slices.Min(long) / slices.Min(short); growth > worst {
			worst, of = growth, p
		}
	}
	b.atMost(fmt.Sprintf("twice the octets of a hostile From field, times the time (%.12q)", of), worst, fromGrowth, "")
	return nil
}

// timed returns the nanoseconds of CPU that one of n calls takes.
func timed(n int, do func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := threadTime()
	for range n {
		do()
	}
	return float64(threadTime()-began) / float64(n)
}

// threadTime is the CPU time that this thread has had.
func threadTime() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err) // every Linux has that clock
	}
	return now.Nano()
}

func readFrom(value string) {
	var f fromfield.Fields
	f.Add(value)
	_ = f.Read()
}

// readByLibrary reads a field and brings its addresses to canonical form.
func readByLibrary(value string) {
	p := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: func(_ string, in io.Reader) (io.Reader, error) { return in, nil }}}
	list, err := p.ParseList(value)
	if err != nil {
		return
	}
	for _, a := range list {
		_, _ = wire.ParseAddress(a.Address)
	}
}
