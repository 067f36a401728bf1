package diskfile

import (
	"context"
	"time"
)

// Every is how often the programs look at the files that they watch, so that a change is in
// force a few seconds after it was made.
const Every = time.Second

// Watch calls Refresh of each of the files each time that every has passed, until ctx ends.
// It calls report after each change that was read, with nil where the change is now in force
// and with the error where it is not, and when a file cannot be read. The same error of a
// file is reported once.
func Watch[F interface {
	Refresh() (changed bool, err error)
}](ctx context.Context, every time.Duration, files []F, report func(F, error)) {
	failing := make([]string, len(files)) // the last error reported; "" after a good change
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, file := range files {
			switch changed, err := file.Refresh(); {
			case err != nil && err.Error() != failing[i]:
				failing[i] = err.Error()
				report(file, err)
			case err == nil && changed:
				failing[i] = ""
				report(file, nil)
			}
		}
	}
}
