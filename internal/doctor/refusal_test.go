package doctor

import (
	"net/textproto"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/config"
)

// TestRefusalCause: what MTAs say, and what is wrong.
func TestRefusalCause(t *testing.T) {
	for _, tc := range []struct {
		command string
		code    int
		text    string
		want    cause
	}{
		{"RCPT TO:<a@b.test>", 554, "5.7.1 <a@b.test>: Relay access denied", causeRelay}, // Postfix
		{"RCPT TO:<a@b.test>", 454, "4.7.1 <a@b.test>: Relay access denied", causeRelay}, // Postfix, soft_bounce
		{"RCPT TO:<a@b.test>", 550, "5.7.1 <a@b.test>... Relaying denied", causeRelay},   // Sendmail
		{"RCPT TO:<a@b.test>", 550, "relay not permitted", causeRelay},                   // Exim
		{"RCPT TO:<a@b.test>", 550, "5.1.1 <a@b.test>... User unknown", causeMailbox},    // Sendmail
		{"RCPT TO:<a@b.test>", 550, "5.1.1 <a@b.test>: Recipient address rejected: User unknown in local recipient table", causeMailbox},
		{"RCPT TO:<a@b.test>", 550, "Unrouteable address", causeMailbox}, // Exim
		{"RCPT TO:<a@b.test>", 550, "5.1.2 <a@b.test>... Host unknown (Name server: b.test: host not found)", causeDomain},
		{"RCPT TO:<a@b.test>", 450, "4.1.2 <a@b.test>: Recipient address rejected: Domain not found", causeDomain},
		{"RCPT TO:<a@b.test>", 450, "4.2.0 <a@b.test>: Recipient address rejected: Greylisted", causeLater},
		{"RCPT TO:<a@b.test>", 452, "4.3.1 Insufficient system storage", causeLater},
		{"RCPT TO:<a@b.test>", 504, "5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", causeName},
		{"EHLO", 501, "5.0.0 Invalid domain name", causeName},
		{"MAIL FROM:<>", 530, "5.7.0 Must issue a STARTTLS command first", causeLogin},
		{"MAIL FROM:<>", 530, "5.7.0 Authentication required", causeLogin},
		{"MAIL FROM:<>", 550, "5.7.1 bounces are not taken here", causeSender},
		{"RCPT TO:<a@b.test>", 550, "5.7.1 go away", causeRelay},
		{"RCPT TO:<a@b.test>", 550, "no", causeRelay},
		{"RCPT TO:<a@b.test>", 552, "5.2.2 mailbox full", causeElsewhere},
	} {
		r := &refusal{tc.command, &textproto.Error{Code: tc.code, Msg: tc.text}}
		if got := r.cause(); got != tc.want {
			t.Errorf("%s: %d %s: %d, want %d", tc.command, tc.code, tc.text, got, tc.want)
		}
	}
	for _, text := range []string{"", "5.1", "5.1.1111 x", "5.x.1 x", "4.1.1 x", "5..1 x"} {
		if got := enhancedStatus(&textproto.Error{Code: 550, Msg: text}); got != "" {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// Nobody is asked about twice, whatever the domain of the house is.
func TestNotified(t *testing.T) {
	for _, tt := range []struct {
		dsn   string
		local []string
		want  string
	}{
		{"", nil, "postmaster@example.com"},
		{"", []string{"b.test", "c.test"}, "postmaster@example.com postmaster@b.test"},
		{"", []string{"example.com"}, "postmaster@example.com"},
		{"never", []string{"example.com"}, "postmaster@example.com"},
		{"never", nil, ""},
	} {
		var c config.Config
		c.Notify.DSN, c.LocalDomains = tt.dsn, tt.local
		if got := strings.Join(Options{Config: c}.notified(), " "); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}
