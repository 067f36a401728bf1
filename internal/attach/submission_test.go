package attach

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/milter"
)

// A submissionCase is one submission and its outcome: the address whose key it is
// given, or why none.
type submissionCase struct {
	name          string
	login, client string
	sender        string
	from          []string
	shown         []string // in the From fields, beside from
	to            []string
	key           string
	reason        Reason
}

func (s submissionCase) check(t *testing.T, o Options, a *Attacher) {
	t.Helper()
	sub := milter.OwnMail{Login: s.login, Sender: s.sender, From: addresses(t, s.from...), FromKnown: true, Recipients: s.to}
	for _, mailbox := range s.shown {
		if mailbox[0] == '@' {
			domain, err := wire.DomainAddress(mailbox)
			if err != nil {
				t.Fatal(err)
			}
			sub.FromShown = append(sub.FromShown, domain)
			continue
		}
		sub.FromShown = append(sub.FromShown, addresses(t, mailbox)...)
	}
	if s.client != "" {
		sub.Client = netip.MustParseAddr(s.client)
	}
	if sub.Recipients == nil {
		sub.Recipients = []string{"alice@partner.example"}
	}
	got := a.attachAt(sub, midday)
	if Reason(got.Note) != s.reason || got.Strip != (s.reason != "" && s.reason != OtherDomain) || got.Defer {
		t.Errorf("reason %q, tempfail %v, want %q", got.Note, got.Defer, s.reason)
	}
	want, agent := wire.Key{}, ""
	if s.key != "" {
		want, agent = keyOf(t, o, s.key), "smtp; authkey/1.0"
	}
	if !got.Key.Equal(want) || got.Agent != agent {
		t.Errorf("%v, agent %q, want the one of %q", got.Key, got.Agent, s.key)
	}
}

func from(mailboxes ...string) []string { return mailboxes }

func TestAuthorizeLogin(t *testing.T) {
	const bob, carol = "bob@example.com", "carol@example.com"
	tests := []submissionCase{
		{name: "own address", login: bob, sender: bob, from: from(bob), key: bob},
		{name: "another's address", login: carol, sender: bob, from: from(bob), reason: SenderNotAllowed},
		{name: "another's MAIL FROM", login: bob, sender: carol, from: from(bob), reason: SenderNotAllowed},
		{name: "another's From", login: bob, sender: bob, from: from(carol), reason: FromNotAllowed},
		{name: "another's From too", login: bob, sender: bob, from: from(bob, carol), reason: FromNotAllowed},
		{name: "From of strangers", login: bob, sender: bob, from: from("bob@mail.example"), reason: FromNotAllowed},
		{name: "MAIL FROM of strangers", login: bob, sender: "bob@mail.example", from: from(bob), reason: SenderNotAllowed},
		{name: "same name in our other domain", login: bob, sender: bob, from: from("bob@example.org"), reason: FromNotAllowed},
		{name: "From twice", login: bob, sender: bob, from: from(bob, "BOB@example.com"), key: bob},

		{name: "case of the login", login: "Bob@Example.com", sender: bob, from: from("BOB@EXAMPLE.com"), key: bob},
		{name: "case matters", login: "Bob@example.org", sender: "Bob@example.org", from: from("Bob@EXAMPLE.org"), key: "Bob@example.org"},
		{name: "case matters, other", login: "Bob@example.org", sender: "bob@example.org", from: from("bob@example.org"), reason: SenderNotAllowed},
		{name: "sub-address", login: bob, sender: "bob+list@example.com", from: from("Bob+x@example.com"), key: bob},
		{name: "sub-address as login", login: "bob+list@example.com", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "sub-address as login, own address", login: "bob+list@example.com", sender: "bob+list@example.com", from: from("bob+list@example.com"), reason: LoginSpelling},
		{name: "empty sub-address as login", login: "bob+@example.com", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "BATV as login", login: "prvs=0=bob@example.com", sender: "prvs=0=bob@example.com", from: from(bob), reason: LoginSpelling},
		{name: "BATV of Barracuda as login", login: "btv1==0==bob@example.com", sender: "btv1==0==bob@example.com", from: from(bob), reason: LoginSpelling},
		{name: "BATV of Microsoft as login", login: "msprvs1=0=bob@example.com", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "BATV of the first drafts as login", login: "prvs=bob/0@example.com", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "BATV as sender", login: bob, sender: "prvs=0=bob@example.com", from: from(bob), reason: SenderNotAllowed},
		{name: "source route as login", login: "@evil.example:bob@example.com", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "needless quotes in a login", login: `"bob"@example.com`, sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "quotes inside a login", login: `bo""b@example.com`, sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "a backslash in a login", login: `b\ob@example.com`, sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "a dot after the domain of a login", login: "bob@example.com.", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "another dot in a login", login: "bob@example\u3002com", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "login that needs quotes", login: `"John Doe"@EXAMPLE.com`, sender: `"john doe"@example.com`, from: from(`"john doe"@example.com`), key: `"john doe"@example.com`},
		{name: "login with U+212A", login: "\u212Aim@example.com", sender: "kim@example.com", from: from("kim@example.com"), reason: LoginSpelling},
		{name: "login with U+0130", login: "jul\u0130a@example.com", sender: "julia@example.com", from: from("julia@example.com"), reason: LoginSpelling},
		{name: "login with I and U+0307", login: "julI\u0307a@example.com", sender: "julia@example.com", from: from("julia@example.com"), reason: LoginSpelling},
		{name: "login with a ligature", login: "\uFB01n@example.com", sender: "fin@example.com", from: from("fin@example.com"), reason: LoginSpelling},
		{name: "login of full width", login: "\uFF42ob@example.com", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "login with a blank that does not show", login: "bob\u200B@example.com", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "login in upper case outside ASCII", login: "J\u00DCRGEN@example.com", sender: "j\u00FCrgen@example.com", from: from("j\u00FCrgen@example.com"), reason: LoginSpelling},
		{name: "From with U+0130", login: "julia@example.com", sender: "julia@example.com", from: from("jul\u0130a@example.com"), reason: FromNotAllowed},
		{name: "quoted", login: `"john doe"@example.com`, sender: `"John\ Doe"@example.com`, from: from(`"john doe"@example.com`), key: `"john doe"@example.com`},
		{name: "UTF-8", login: "jürgen@example.com", sender: "JÜRGEN@example.com", from: from("ju\u0308rgen+a@example.com"), key: "jürgen@example.com"},
		{name: "source route", login: bob, sender: "@a.example,@b.example:bob@example.com", from: from(bob), key: bob},

		{name: "no login", sender: bob, from: from(bob), client: "198.51.100.1", reason: NoLogin},
		{name: "no login, no client", sender: bob, from: from(bob), reason: NoLogin},
		{name: "login without domain", login: "bob", sender: bob, from: from(bob), reason: LoginForm},
		{name: "login from a network", login: carol, client: "192.0.2.1", sender: bob, from: from(bob), reason: SenderNotAllowed},

		{name: "not in the list", login: "dave@example.com", sender: "dave@example.com", from: from("dave@example.com"), reason: NotListed},
		{name: "strangers", login: "x@mail.example", sender: "x@mail.example", from: from("x@mail.example"), reason: OtherDomain},
		{name: "subdomain", login: "bob@mx.example.com", sender: "bob@mx.example.com", from: from("bob@mx.example.com"), reason: OtherDomain},
		{name: "no From", login: bob, sender: bob, reason: BadFrom},
		{name: "no From, not ours", login: bob, sender: "x@mail.example", reason: OtherDomain},
		{name: "MAIL FROM without domain", login: bob, sender: "bob", from: from(bob), reason: BadSender},
		{name: "MAIL FROM with a literal", login: bob, sender: "bob@[192.0.2.1]", from: from(bob), reason: BadSender},
		{name: "MAIL FROM with a line break", login: bob, sender: "bob\r\n@example.com", from: from(bob), reason: SenderNotAllowed},

		{name: "a colleague shown in the name", login: bob, sender: bob, from: from(bob), shown: from(carol), reason: FromNotAllowed},
		{name: "the address shown in the name", login: bob, sender: bob, from: from(bob), shown: from("Bob@example.com", "bob+x@example.com"), key: bob},
		{name: "strangers shown in the name", login: bob, sender: bob, from: from(bob), shown: from("x@mail.example", "@example.com"), key: bob},
		{name: "null sender", login: bob, from: from(bob), key: bob},
		{name: "null sender, another's From", login: bob, from: from(carol), reason: FromNotAllowed},
		{name: "null sender, several From", login: bob, from: from(bob, carol), reason: SeveralFrom},
		{name: "null sender, From twice", login: bob, from: from(bob, bob), key: bob},
		{name: "null sender, strangers' From", login: bob, from: from("x@mail.example"), reason: OtherDomain},
		{name: "null sender, no From", login: bob, reason: OtherDomain},
	}
	o := options(t)
	o.Domains[0].Config = ringConfig(t, "Example.COM", "bob\ncarol gen=2\nsales\n\"john doe\"\nj\u00FCrgen\nkim\njulia\nfin\n")
	o.TempFail = true // nothing of this passes
	a := start(t, o)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.check(t, o, a) })
	}
}

func TestAuthorizeMap(t *testing.T) {
	const bob, carol, sales = "bob@example.com", "carol@example.com", "sales@example.com"
	tests := []submissionCase{
		{name: "own address", login: "b1", sender: bob, from: from(bob), key: bob},
		{name: "login in another case", login: "B1", sender: "BOB@example.com", from: from(bob), key: bob},
		{name: "login in another case, the first and last letters", login: "AZaz@[{", sender: bob, from: from(bob), key: bob},
		{name: "login that differs beside letters", login: "AZaz@{{", sender: bob, from: from(bob), reason: SenderNotAllowed},
		{name: "login that is the address", login: bob, sender: bob, from: from(bob), reason: SenderNotAllowed},
		{name: "shared address", login: "c1", sender: sales, from: from(sales), key: sales},
		{name: "shared address, continued line", login: "dave", sender: sales, from: from(sales), key: sales},
		{name: "MAIL FROM's key", login: "b1", sender: sales, from: from(bob), key: sales},
		{name: "MAIL FROM's key, the other way round", login: "b1", sender: bob, from: from(sales), key: bob},
		{name: "may not use From", login: "c1", sender: sales, from: from(bob), reason: FromNotAllowed},
		{name: "may use From of strangers", login: "b1", sender: bob, from: from("Bob@mail.example"), key: bob},
		{name: "may not use From of strangers", login: "b1", sender: bob, from: from("carol@mail.example"), reason: FromNotAllowed},
		{name: "no line", login: "b1", sender: "nobody@example.com", from: from(bob), reason: SenderNotAllowed},

		{name: "sub-address of a line", login: "b1", sender: "bob+x@example.com", from: from(bob), key: bob},
		{name: "sub-address with a line of its own", login: "c1", sender: "bob+shop@example.com", from: from("bob+shop@example.com"), reason: LineSpelling},
		{name: "sub-address with a line of its own, null sender", login: "c1", from: from("bob+shop@example.com"), reason: LineSpelling},
		{name: "sub-address with a line of its own, From beside his own MAIL FROM", login: "c1", sender: carol, from: from("bob+shop@example.com"), key: carol},
		{name: "BATV form with a line of its own", login: "c1", sender: "prvs=0=bob@example.com", from: from("prvs=0=bob@example.com"), reason: LineSpelling},
		{name: "BATV form of Barracuda with a line of its own", login: "c1", sender: "btv1==0==bob@example.com", from: from(carol), reason: LineSpelling},
		{name: "part of a granted login", login: "b", sender: bob, from: from(bob), reason: SenderNotAllowed},
		{name: "part of a granted login, the other end", login: "1", sender: sales, from: from(sales), reason: SenderNotAllowed},
		{name: "part of two granted logins", login: "dave,news", sender: sales, from: from(sales), reason: SenderNotAllowed},
		{name: "granted login and more", login: "b11", sender: bob, from: from(bob), reason: SenderNotAllowed},
		{name: "login that only looks granted", login: "b1\u200B", sender: bob, from: from(bob), reason: LoginSpelling},
		{name: "line of its own, before the address's", login: "b1", sender: "bob+shop@example.com", from: from(bob), reason: SenderNotAllowed},
		{name: "whole domain", login: "admin", sender: "carol@example.org", from: from("bob@example.org"), key: "carol@example.org"},
		{name: "address before domain", login: "admin", sender: "Bob@example.org", from: from("carol@example.org"), reason: SenderNotAllowed},
		{name: "case matters", login: "b1", sender: "Bob@example.org", from: from("Bob@example.org"), key: "Bob@example.org"},
		{name: "case matters, other", login: "b1", sender: "bob@example.org", from: from("Bob@example.org"), reason: SenderNotAllowed},
		{name: "empty local part", login: "odd", sender: `""@example.com`, from: from(bob), reason: FromNotAllowed},
		{name: "empty local part is no domain", login: "odd", sender: "dora@example.com", from: from("dora@example.com"), reason: SenderNotAllowed},

		{name: "return path of a mailing service", login: "news", sender: "bounce-17@mailing.example", from: from(sales), key: sales},
		{name: "return path, several From", login: "news", sender: "bounce-17@mailing.example", from: from(sales, bob), reason: SeveralFrom},
		{name: "return path of others", login: "b1", sender: "bounce-17@mailing.example", from: from(bob), reason: SenderNotAllowed},
		{name: "From not in the list", login: "b1", sender: bob, from: from("NoReply@example.com"), key: bob},
		{name: "MAIL FROM not in the list, From is", login: "b1", sender: "noreply@example.com", from: from(bob), reason: NotListed},
		{name: "login with a comma", login: "b1,c1", sender: sales, from: from(sales), reason: SenderNotAllowed},
		{name: "no login", client: "198.51.100.1", sender: bob, from: from(bob), reason: NoLogin},
	}
	o := options(t)
	o.Domains[1].To = nil
	o.Authorize = "map:" + write(t, filepath.Join(t.TempDir(), "logins"), `# who may use what
BOB@Example.com		b1 azAZ@[{
bob+shop@example.com	c1
prvs=0=bob@example.com	c1
btv1==0==bob@example.com	c1
carol@example.com	c1
sales@example.com	b1, C1
# between a line and its continuation

  dave,news
noreply@example.com	b1
@example.org		admin
Bob@example.org		b1
bob@mail.example	b1
@mailing.example	news
""@example.com		odd
`)
	a := start(t, o)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.check(t, o, a) })
	}
}

func TestNetworks(t *testing.T) {
	const bob, carol = "bob@example.com", "carol@example.com"
	tests := []submissionCase{
		{name: "IPv4", client: "192.0.2.7", sender: bob, from: from(bob), key: bob},
		{name: "IPv6", client: "2001:db8::1", sender: bob, from: from(bob), key: bob},
		{name: "elsewhere", client: "192.0.3.1", sender: bob, from: from(bob), reason: NoLogin},
		{name: "two addresses", client: "192.0.2.7", sender: bob, from: from(carol, "carol@example.org"), key: bob},
		{name: "not in the list", client: "192.0.2.7", sender: "dave@example.com", from: from(bob), reason: NotListed},
		{name: "MAIL FROM of strangers", client: "192.0.2.7", sender: "x@mail.example", from: from(bob), reason: SenderNotAllowed},
		{name: "From of strangers", client: "192.0.2.7", sender: bob, from: from("x@mail.example"), reason: FromNotAllowed},
		{name: "null sender", client: "192.0.2.7", from: from(bob), key: bob},
	}
	o := options(t)
	a := start(t, o)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.check(t, o, a) })
	}
}

func TestRecipientDomains(t *testing.T) {
	const bob, carol = "bob@example.com", "carol@example.org"
	to := func(recipients ...string) []string { return recipients }
	tests := []submissionCase{
		{name: "listed", to: to("a@partner.example", "b@PARTNER.example."), key: carol},
		{name: "listed, IDN", to: to("a@xn--bcher-kva.example", "b@Bücher.example"), key: carol},
		{name: "one not listed", to: to("a@partner.example", "b@stranger.example"), reason: RecipientDomain},
		{name: "subdomain", to: to("a@mx.partner.example"), reason: RecipientDomain},
		{name: "our own", to: to("bob@example.org"), reason: RecipientDomain},
		{name: "no domain", to: to("a@partner.example", "postmaster"), reason: RecipientDomain},
		{name: "literal", to: to("a@[192.0.2.1]"), reason: RecipientDomain},
		{name: "quoted @", to: to(`"x@partner.example"@stranger.example`), reason: RecipientDomain},
		{name: "domain without a list of its own", sender: bob, to: to("a@stranger.example", "postmaster"), key: bob},
	}
	o := options(t)
	a := start(t, o)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.sender == "" {
				tt.sender = carol
			}
			tt.login, tt.from = tt.sender, from(tt.sender)
			tt.check(t, o, a)
		})
	}
}

// What two addresses have in common is said by the keyring alone: a name they share is
// not enough.
func TestNameIsNotEnough(t *testing.T) {
	o := options(t)
	o.Domains[0].Config = ringConfig(t, "example.com", "any")
	o.Domains[0].Subaddress = "="
	tests := []submissionCase{
		{name: "no UTF-8", login: "a\xff@example.com", sender: "a\xfe@example.com", from: from("a\xfe@example.com"), reason: SenderNotAllowed},
		{name: "BATV looks like a sub-address", login: "prvs@example.com", sender: "prvs=0123ab=bob@example.com", from: from("bob@example.com"), reason: SenderNotAllowed},
		{name: "sub-address", login: "bob@example.com", sender: "bob=x@example.com", from: from("bob@example.com"), key: "bob@example.com"},
	}
	a := start(t, o)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.check(t, o, a) })
	}
	o.Authorize = "map:" + write(t, filepath.Join(t.TempDir(), "logins"), "prvs@example.com x\nbob@example.com x\n")
	a = start(t, o)
	submissionCase{login: "x", sender: "prvs=0123ab=carol@example.com", from: from("bob@example.com"), reason: SenderNotAllowed}.check(t, o, a)
	submissionCase{login: "x", sender: "prvs@example.com", from: from("Bob@example.com"), key: "prvs@example.com"}.check(t, o, a)
}

// With another separator, a login that looks like a mailbox is a sub-address of one.
func TestLoginIsASubaddress(t *testing.T) {
	o := options(t)
	o.Domains[0].Config = ringConfig(t, "example.com", "mary\nbob\n")
	o.Domains[0].Subaddress = "-"
	a := start(t, o)
	tests := []submissionCase{
		{name: "her own", login: "mary-ann@example.com", sender: "mary-ann@example.com", from: from("mary-ann@example.com"), reason: LoginSpelling},
		{name: "the base's", login: "mary-ann@example.com", sender: "mary@example.com", from: from("mary@example.com"), reason: LoginSpelling},
		{name: "the base", login: "Mary@example.com", sender: "mary-ann@example.com", from: from("mary@example.com"), key: "mary@example.com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.check(t, o, a) })
	}
}

// A From address needs no key of its own, and so no list.
func TestFromWithoutList(t *testing.T) {
	o := options(t)
	o.Authorize = "map:" + write(t, filepath.Join(t.TempDir(), "logins"), "bob@example.com x\nbob@example.org x\n")
	o.Domains[1].Addresses += ".none"
	a, err := New(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.Reload(func(*keyring.Domain, error) {})
	submissionCase{login: "x", sender: "bob@example.com", from: from("bob@example.org"), key: "bob@example.com"}.check(t, o, a)
}

func BenchmarkAttach(b *testing.B) {
	a := start(b, options(b))
	from := addresses(b, "bob@example.com")
	for name, login := range map[string]string{"same": "bob@example.com", "by key": "Bob@example.com"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v := a.attachAt(milter.OwnMail{Login: login, Sender: "bob@example.com", From: from, FromKnown: true, Recipients: []string{"x@y.example"}}, midday)
				if v.Note != "" {
					b.Fatal(v.Note)
				}
			}
		})
	}
}

func TestIsSpelling(t *testing.T) {
	for _, login := range []string{"Bob@bücher.example", "bob@xn--bcher-kva.example", "bob@XN--BCHER-kva.example"} {
		if !isSpelling(login, address(t, "bob@bücher.example")) {
			t.Errorf("%q is none of bob@bücher.example", login)
		}
	}
	for _, login := range []string{"bob@BÜCHER.example", "bob@bücher\u3002example", "bob@bücher.example.", "@a.example:bob@bücher.example", "rob@bücher.example", "bob@example"} {
		if isSpelling(login, address(t, "bob@bücher.example")) {
			t.Errorf("%q is one of bob@bücher.example", login)
		}
	}
}

// What was read of From fields that cannot be read whole counts for nothing.
func TestUnreadableFrom(t *testing.T) {
	o := options(t)
	a := start(t, o)
	m := bobs(t)
	m.FromKnown = false
	if got := a.attachAt(m, midday); Reason(got.Note) != BadFrom || !got.Strip || !got.Key.IsZero() {
		t.Errorf("MAIL FROM of ours: %q, strip %v", got.Note, got.Strip)
	}
	m.Sender = ""
	if got := a.attachAt(m, midday); Reason(got.Note) != OtherDomain || got.Strip || !got.Key.IsZero() {
		t.Errorf("null sender: %q, strip %v", got.Note, got.Strip)
	}
}
