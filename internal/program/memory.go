package program

import (
	"os"
	"runtime/debug"
)

// The heap of a milter is small, a few MB without a full cache, and its garbage is
// much: the collector would run hundreds of times a second. A ballast that is
// allocated and never touched, and so costs no memory, makes it run for each
// ballast*percent of garbage at the least; the low percentage keeps the waste small
// where a full cache makes the heap large. It counts in every figure of the heap,
// not in that of resident memory.
const (
	ballastSize = 64 << 20
	gcPercent   = 50
)

var ballast []byte

// TuneCollector does that, unless the administrator has a GOGC of his own. It is
// for programs that serve.
func TuneCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	ballast = make([]byte, ballastSize)
	debug.SetGCPercent(gcPercent)
}
