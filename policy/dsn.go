package policy

import "strings"

// DeclinesDSN reports whether the ESMTP parameters of a RCPT, separated by blanks,
// say that the sender does not want to hear of a failure: NOTIFY without FAILURE
// (RFC 3461 section 4.1). That counts as a DSN sent, also where none may be.
func DeclinesDSN(rcptArgs string) bool {
	for arg := range strings.FieldsSeq(rcptArgs) {
		name, value, _ := strings.Cut(arg, "=")
		if !strings.EqualFold(name, "NOTIFY") || value == "" {
			continue
		}
		for word := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(word, "FAILURE") {
				return false
			}
		}
		return true
	}
	return false
}
