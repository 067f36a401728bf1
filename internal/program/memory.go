package program

import (
	"os"
	"runtime/debug"
)

const (
	ballastSize = 48 << 20
	gcPercent   = 20
)

// TuneCollector makes the garbage collector run less often, unless the administrator has
// set GOGC. The heap of a milter is small, a few MB without a full cache, and it makes much
// garbage: the collector would run hundreds of times a second. Therefore a large slice (the
// ballast) is allocated and never touched, so that it takes no resident memory. The
// collector then runs only after at least ballast*percent of garbage. The low percentage
// keeps the unused memory small where a full cache makes the heap large. The ballast is
// contained in every figure of the heap, but not in resident memory.
//
// It is for programs that serve; they keep what it returns alive to their end.
func TuneCollector() (ballast []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, ballastSize)
}
