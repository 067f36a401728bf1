package milter

import "testing"

func TestVouches(t *testing.T) {
	tests := []struct {
		value string
		want  bool
	}{
		{"mx.test; spf=pass smtp.mailfrom=alice@sender.example", true},
		{"mx.test; spf=pass smtp.mailfrom=Sender.Example.", true},
		{"MX.test 1; spf/1 = (good) PASS reason=\"a; b=c\" smtp.mailfrom=\"a b@c\"@sender.example", true},
		{"mx.test; spf=pass smtp.mailfrom=\"alice@sender.example\"", true},
		{"mx.test; dkim=fail header.d=sender.example;\r\n\tdkim=pass header.d=sender.example header.s=sel header.b=ab/c+d", true},
		{"mx.test; dkim=pass header.i=@sender.example", true},
		{"mx.test; dkim=pass header.i=x@sender.example header.d=other.example", true},
		{"mx.test; dmarc=pass header.from=sender.example; spf=pass smtp.helo=h.example smtp.mailfrom=sender.example", true},

		{"other.test; spf=pass smtp.mailfrom=alice@sender.example", false},
		{"mx.test; spf=fail smtp.mailfrom=alice@sender.example", false},
		{"mx.test; spf=softfail smtp.mailfrom=sender.example; dkim=none header.d=sender.example", false},
		{"mx.test; spf=pass smtp.mailfrom=alice@other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example@other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=a@sub.sender.example", false},
		{"mx.test; spf=pass smtp.helo=sender.example", false},
		{"mx.test; spf=pass header.d=sender.example", false},
		{"mx.test; dkim=pass smtp.mailfrom=sender.example", false},
		{"mx.test; dmarc=pass header.d=sender.example header.from=sender.example", false},
		{"mx.test; x-spf=pass smtp.mailfrom=sender.example", false},
		// Local parts with "=" (VERP, SRS, BATV) that nobody quoted.
		{"mx.test; spf=pass smtp.mailfrom=x=smtp.mailfrom=sender.example=y@other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=smtp.mailfrom=sender.example@other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=\"x smtp.mailfrom=sender.example\"@other.example", false},
		{"mx.test; spf=pass (smtp.mailfrom=sender.example) smtp.mailfrom=other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example (open", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example@", false},
		{"mx.test; spf=pass smtp.mailfrom=", false},
		{"mx.test; spf=pass smtp.mailfrom", false},
		{"mx.test; spf=pass", false},
		{"mx.test; spf/1", false},
		{"mx.test; none", false},
		{"mx.test;;;", false},
		{"\"mx.test", false},
		{"", false},
	}
	for _, tt := range tests {
		if got := vouches(tt.value, []string{"mx.test"}, "sender.example"); got != tt.want {
			t.Errorf("vouches(%q) = %v", tt.value, got)
		}
	}
	if vouches("mx.test; spf=pass smtp.mailfrom=\"@\"", []string{"mx.test"}, "") {
		t.Error("a sender without domain is vouched for")
	}
}

func FuzzVouches(f *testing.F) {
	f.Add("mx.test; spf=pass smtp.mailfrom=a=b@sender.example")
	f.Add("mx.test 1; dkim/1=pass (c) header.d=\"sender.example\"; x=")
	f.Fuzz(func(t *testing.T, value string) {
		if vouches(value, []string{"mx.test"}, "sender.example") && !containsFold(value, "pass") {
			t.Fatalf("%q vouches", value)
		}
	})
}
