package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testmta"
)

// TestRefusalsSurviveAKill: of a message that nobody has any more, the log line is there
// as soon as its client has heard the answer, whatever happens to the milter then.
func TestRefusalsSurviveAKill(t *testing.T) {
	const kills = 12 // of which some would come in time to lose a line that waits
	o := newOffice(t, newWorld(t), postfixOffice(testmta.PostfixOptions{}))
	for _, action := range []string{"reject", "discard"} {
		o.configure(t, "policy: {fail: "+action+"}\n")
		for range kills {
			since := len(o.milter.Log())
			c := dialSMTP(t, o.mta)
			m := o.forgedBy(t, "bob@rcpt.test")
			out := sendMail(t, c, m)
			must(t, o.milter.Signal(os.Kill))
			<-o.milter.Done()
			if want := map[string]int{"reject": 550, "discard": 250}[action]; out.Final.Code != want {
				t.Errorf("%s: the answer is %s", action, out.Final)
			}
			if log := o.milter.Log()[since:]; !strings.Contains(log, " action="+action+" ") {
				t.Errorf("%s: no line about the message in %q", action, log)
			}
			_ = c.Close()
			o.start(t)
		}
	}
	m := &mail{from: "alice@" + withAS} // for the mailbox that is looked at in the end
	sendMail(t, dialSMTP(t, o.mta), m)
	delivered(t, o.mta, m)
}
