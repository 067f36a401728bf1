package policy

import "testing"

func TestDeclinesDSN(t *testing.T) {
	for args, want := range map[string]bool{
		"":                              false,
		"NOTIFY=NEVER":                  true,
		"notify=never":                  true,
		"NOTIFY=SUCCESS":                true,
		"NOTIFY=DELAY,SUCCESS":          true,
		"NOTIFY=FAILURE":                false,
		"NOTIFY=SUCCESS,failure":        false,
		"NOTIFY=FAILURES,NOFAILURE":     true,
		"NOTIFY=":                       false, // says nothing
		"NOTIFY":                        false,
		"ORCPT=rfc822;a@b NOTIFY=NEVER": true,
		"ORCPT=NOTIFY=NEVER":            false,
		"RET=HDRS":                      false,
	} {
		if got := DeclinesDSN(args); got != want {
			t.Errorf("DeclinesDSN(%q) = %v", args, got)
		}
	}
}
