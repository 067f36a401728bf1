package manual

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/reasons"
)

// WriteReasons writes the page authkey-reasons(7): every reason and note of the log.
func WriteReasons(w io.Writer, version string, date time.Time) error {
	var p page
	p.line(fmt.Sprintf(`.TH AUTHKEY\-REASONS 7 %q %q "Miscellaneous Information Manual"`, date.Format(time.DateOnly), "authkey "+version))
	p.line(".SH NAME")
	p.line(`authkey\-reasons \- what reason= and note= in the log of authkey\-milter mean`)
	p.line(".SH DESCRIPTION")
	p.text("Each message has one line in the log. Its reason= says why result= is what it is, in one word; so does reason= in Authentication-Results, " +
		"where nokey is none with the reason \"no AuthKey\". Its note= lists remarks. A pass has no reason, nor has a plain nokey: " +
		"the domain publishes an Authentication Server (AS), and the message has no key.")
	for _, g := range reasons.Groups() {
		p.line(".SH " + escape(strings.ToUpper(g.Title)))
		p.text(plainText(g.About))
		for _, e := range g.Entries {
			p.line(".TP")
			p.line(`\fB` + escape(e.Word) + `\fR`)
			p.text(plainText(e.Meaning))
			if e.Do != "" {
				p.line(".br")
				p.text(plainText(e.Do))
			}
		}
	}
	p.line(".SH SEE ALSO")
	p.line(`.BR authkey\-milter (8),`)
	p.line(`.BR authkey\-milter.yaml (5)`)
	return p.writeTo(w)
}

// plainText is text without the marks of Markdown.
func plainText(s string) string { return strings.NewReplacer("`", "", "*", "").Replace(s) }
