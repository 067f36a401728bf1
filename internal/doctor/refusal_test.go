package doctor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/notify"
)

// TestRefusalCause: what MTAs say, and what is wrong.
func TestRefusalCause(t *testing.T) {
	for _, tc := range []struct {
		command string
		code    int
		text    string
		want    cause
	}{
		{"RCPT", 554, "5.7.1 <a@b.test>: Relay access denied", causeRelay}, // Postfix
		{"RCPT", 454, "4.7.1 <a@b.test>: Relay access denied", causeRelay}, // Postfix, soft_bounce
		{"RCPT", 550, "5.7.1 <a@b.test>... Relaying denied", causeRelay},   // Sendmail
		{"RCPT", 550, "relay not permitted", causeRelay},                   // Exim
		{"RCPT", 550, "5.1.1 <a@b.test>... User unknown", causeMailbox},    // Sendmail
		{"RCPT", 550, "5.1.1 <a@b.test>: Recipient address rejected: User unknown in local recipient table", causeMailbox},
		{"RCPT", 550, "Unrouteable address", causeMailbox}, // Exim
		{"RCPT", 550, "5.1.2 <a@b.test>... Host unknown (Name server: b.test: host not found)", causeDomain},
		{"RCPT", 450, "4.1.2 <a@b.test>: Recipient address rejected: Domain not found", causeDomain},
		{"RCPT", 450, "4.2.0 <a@b.test>: Recipient address rejected: Greylisted", causeLater},
		{"RCPT", 452, "4.3.1 Insufficient system storage", causeLater},
		{"RCPT", 504, "5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", causeName},
		{"EHLO", 501, "5.0.0 Invalid domain name", causeName},
		{"MAIL", 530, "5.7.0 Must issue a STARTTLS command first", causeLogin},
		{"MAIL", 530, "5.7.0 Authentication required", causeLogin},
		{"MAIL", 550, "5.7.1 bounces are not taken here", causeSender},
		{"RCPT", 550, "5.7.1 go away", causeRelay},
		{"RCPT", 550, "no", causeRelay},
		{"RCPT", 552, "5.2.2 mailbox full", causeElsewhere},
	} {
		reply := &smtp.SMTPError{Code: tc.code, Message: tc.text}
		if _, err := fmt.Sscanf(tc.text, "%d.%d.%d", &reply.EnhancedCode[0], &reply.EnhancedCode[1], &reply.EnhancedCode[2]); err == nil {
			_, reply.Message, _ = strings.Cut(tc.text, " ")
		}
		if got := causeOf(&notify.Refusal{Command: tc.command, SMTPError: reply}); got != tc.want {
			t.Errorf("%s: %d %s: %d, want %d", tc.command, tc.code, tc.text, got, tc.want)
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
		if got := strings.Join((&checks{Options: Options{Config: c}}).notified(), " "); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}
