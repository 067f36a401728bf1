package program

import (
	"os"
	"runtime/debug"
)

const (
	ballastSize = 48 << 20
	gcPercent   = 20
)

// TuneCollector makes the garbage collector run less often, unless the
// administrator has a GOGC of his own. The heap of a milter is small, a few MB
// without a full cache, and its garbage is much: the collector would run hundreds of
// times a second. A ballast that is allocated and never touched, and so costs no
// memory, makes it run for each ballast*percent of garbage at the least; the low
// percentage keeps the waste small where a full cache makes the heap large. The
// ballast counts in every figure of the heap, not in that of resident memory.
//
// It is for programs that serve; they keep what it returns alive to their end.
func TuneCollector() (ballast []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, ballastSize)
}
