package doctor

import (
	"context"
	"time"
)

// ExamineClock is the check of the clock, for the doctors of other programs. configFile
// cannot have been changed in the future; it is empty where there is none.
func ExamineClock(ctx context.Context, configFile string, now func() time.Time, synchronized func() (bool, error), container string) []Finding {
	return Options{ConfigFile: configFile, Now: now, Synchronized: synchronized, Container: container}.clock(ctx)
}
