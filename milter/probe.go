package milter

import "strings"

// ProbeEnvelopeID is the ENVID parameter (RFC 3461 section 4.4) with which authkey's own
// programs begin a transaction that is no mail. The line about it says probe=doctor.
const ProbeEnvelopeID = "authkey-doctor-probe"

// isProbe reports whether a message that did not reach its end was a probe of our own: it
// says so, it is from the null sender, and it comes from this machine or one of ours. For
// anybody else a message cannot be kept out of reports in this way.
func (m *message) isProbe() bool {
	if m.sender != "" || m.class != submission && !m.origin.client.IsLoopback() {
		return false
	}
	for arg := range strings.FieldsSeq(m.mailArgs) {
		if strings.EqualFold(arg, "ENVID="+ProbeEnvelopeID) {
			return true
		}
	}
	return false
}
