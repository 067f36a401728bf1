package milter

import "testing"

func TestAsMTA(t *testing.T) {
	tests := []struct{ written, understood, want string }{
		{"alice@a.test", "alice@a.test", "alice@a.test"},
		{"alice@A.test.", "alice@A.test", "alice@A.test."},
		{`"alice"@a.test`, "alice@a.test", `"alice"@a.test`},
		{"@r.test:alice@a.test", "alice@a.test", "@r.test:alice@a.test"},
		{"\"a\rb\"@a.test", "a b@a.test", "\"a\rb\"@a.test"},
		{"SRS0=Ab=cD=b.test=x@A.test", "srs0=ab=cd=b.test=x@a.test", "SRS0=Ab=cD=b.test=x@A.test"}, // Postfix folds case
		{"alice", "alice@mx.test", "alice"},
		{"alice@a.test", "", "alice@a.test"},
		{"", "MAILER-DAEMON", ""},
		{"alice@a.test", "alice", "alice@a.test"}, // Sendmail, a user of its own

		{"alice@a.test (x@b.test", "alice@a.test", "alice@a.test"},
		{"<alice@a.test> x@b.test", "alice@a.test", "alice@a.test"},
		{"alice%a.test", "alice@a.test", "alice@a.test"},
		{"a.test!alice", "alice@a.test", "alice@a.test"},
		{"x@b.test@a.test", "x@b.test", "x@b.test"},
		{" alice@a.test", "alice@a.test", "alice@a.test"},
	}
	for _, tt := range tests {
		if got := asMTA(tt.written, tt.understood); got != tt.want {
			t.Errorf("asMTA(%q, %q) = %q, want %q", tt.written, tt.understood, got, tt.want)
		}
	}
}
