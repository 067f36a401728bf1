package notify

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/esmtp"
)

const (
	// defaultName is the display name of our mail where notify.from_name is empty.
	defaultName = "Mail Delivery System"
	// maxValue bounds, in characters, what a text shows of a value from outside.
	maxValue = 200
	// maxListed bounds how many recipients the text of a DSN names; its report
	// names all.
	maxListed = 20
)

// A composer writes one DSN or notice.
type composer struct {
	n    *Notifier
	o    *Original
	kind string
	to   string // as mailbox returns it
	id   digest // of what is sent: the same mail, sent again, has the same Message-ID
}

// host is whose mail it is: that of the MTA which the message came to, and of this
// machine where its name is not known or is none.
func (c composer) host() string {
	if name, err := hostName(c.o.MTA); err == nil {
		return name
	}
	return c.n.opts.Hostname
}

// header writes the fields that all our mail has, without the empty line.
func (c composer) header(b *bytes.Buffer, subject string) {
	from, auto := "MAILER-DAEMON", "auto-replied"
	if c.kind == kindNotice {
		from, auto = "postmaster", "auto-generated"
	}
	fmt.Fprintf(b, "Date: %s\r\n", c.n.now().Format(time.RFC1123Z))
	fmt.Fprintf(b, "From: %s <%s@%s>\r\n", formatName(c.n.opts.FromName), from, c.host())
	fmt.Fprintf(b, "To: <%s>\r\n", c.to)
	b.WriteString(formatField("Subject", subject))
	fmt.Fprintf(b, "Message-ID: <authkey-%s.%s@%s>\r\n", c.kind, hex.EncodeToString(c.id[:]), c.host())
	if id := c.o.messageID(); id != "" {
		fmt.Fprintf(b, "In-Reply-To: %s\r\nReferences: %s\r\n", id, id)
	}
	fmt.Fprintf(b, "Auto-Submitted: %s\r\n%s: %s\r\nMIME-Version: 1.0\r\n", auto, reportField, c.kind)
}

// notice writes a notice: one text, 7bit whatever its language.
func (c composer) notice(notice Notice) []byte {
	o := c.o
	t := c.n.text(o, kindNotice, notice.Language, NoticeFields{
		Recipient: oneLine(esmtp.SafeAddress(notice.Recipient), maxValue), Domain: oneLine(domainOf(c.to), maxValue),
		Sender: oneLine(esmtp.SafeAddress(o.Sender), maxValue),
		From:   oneLine(decodeWords(o.value("From")), maxValue), Subject: o.subject(),
		Client: oneLine(o.Client, maxValue), QueueID: oneLine(o.QueueID, maxValue), Arrived: o.Arrived,
		Checked: oneLine(esmtp.SafeAddress(o.checked()), maxValue), Result: oneLine(o.Result, maxValue), Reason: oneLine(o.Reason, maxValue),
		Refused: notice.Refused, Host: c.host(),
	})
	var b bytes.Buffer
	c.header(&b, t.subject)
	fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Language: %s\r\n\r\n", t.language)
	b.Write(quotePrintable([]byte(t.body)))
	return b.Bytes()
}

// dsn writes a multipart/report about all of failures. A sender whose address
// needs UTF-8 gets it in the forms of RFC 6533; for any other it is 7bit.
func (c composer) dsn(failures []Failure) []byte {
	wide := !isASCII(c.to)
	t := c.n.text(c.o, kindDSN, c.n.languageOf(c.o), c.dsnFields(failures))
	var b bytes.Buffer
	c.header(&b, t.subject)
	if wide {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	parts := multipart.NewWriter(&b)
	// Drawn anew each time: who wrote the header below must not know what would end its part.
	fmt.Fprintf(&b, "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"\r\n\r\n", c.n.boundary(parts))

	human := part("Content-Type", "text/plain; charset=utf-8", "Content-Transfer-Encoding", "quoted-printable", "Content-Language", t.language)
	writePart(parts, human, quotePrintable([]byte(t.body)))

	status, original := part("Content-Type", "message/delivery-status"), part("Content-Type", "text/rfc822-headers")
	quoted := quoteFields(c.o.Header, wide)
	if wide {
		status = part("Content-Type", "message/global-delivery-status", "Content-Transfer-Encoding", "8bit")
		original = part("Content-Type", "message/global-headers", "Content-Transfer-Encoding", "8bit")
	} else if !isASCII(string(quoted)) {
		original.Set("Content-Transfer-Encoding", "quoted-printable")
		quoted = quotePrintable(quoted)
	}
	writePart(parts, status, c.status(failures, wide))
	writePart(parts, original, quoted)
	_ = parts.Close() // a buffer takes everything
	return b.Bytes()
}

func (c composer) dsnFields(failures []Failure) DSNFields {
	o := c.o
	fields := DSNFields{
		Sender: oneLine(esmtp.SafeAddress(o.Sender), maxValue), Subject: o.subject(), QueueID: oneLine(o.QueueID, maxValue), Arrived: o.Arrived,
		Checked: oneLine(esmtp.SafeAddress(o.checked()), maxValue), Result: oneLine(o.Result, maxValue), Reason: oneLine(o.Reason, maxValue),
		Reply: replyLine(failures[0]), Host: c.host(),
		More: max(0, len(failures)-maxListed),
	}
	for _, f := range failures[:len(failures)-fields.More] {
		fields.Recipients = append(fields.Recipients, oneLine(esmtp.SafeAddress(f.Recipient), maxValue))
	}
	return fields
}

// status writes the fields of RFC 3464 sections 2.2 and 2.3.
func (c composer) status(failures []Failure, wide bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Reporting-MTA: dns; %s\r\n", c.host())
	if id := esmtp.EnvelopeID(c.o.MailArgs); id != "" {
		fmt.Fprintf(&b, "Original-Envelope-Id: %s\r\n", id)
	}
	if !c.o.Arrived.IsZero() {
		fmt.Fprintf(&b, "Arrival-Date: %s\r\n", c.o.Arrived.Format(time.RFC1123Z))
	}
	if id := cutOctets(printable(c.o.QueueID), maxQueueID); id != "" {
		fmt.Fprintf(&b, "X-Authkey-Queue-ID: %s\r\n", id)
	}
	for _, f := range failures {
		b.WriteString("\r\n")
		if kind, addr := esmtp.OriginalRecipient(f.RcptArgs); addr != "" {
			fmt.Fprintf(&b, "Original-Recipient: %s\r\n", typedAddress(kind, addr, wide))
		}
		fmt.Fprintf(&b, "Final-Recipient: %s\r\nAction: failed\r\nStatus: 5.7.1\r\n", typedAddress(typeRFC822, f.Recipient, wide))
		if reply := replyLine(f); reply != "" {
			fmt.Fprintf(&b, "Diagnostic-Code: smtp; %s\r\n", reply)
		}
	}
	return b.Bytes()
}

// replyLine is the reply as an SMTP client would have seen it.
func replyLine(f Failure) string {
	if f.Reply.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d %s %s", f.Reply.Code, printable(f.Reply.Enhanced), cutOctets(printable(f.Reply.Text), maxLine-64))
}

func (o *Original) subject() string { return oneLine(decodeWords(o.value("Subject")), maxValue) }

// text renders a template and logs its fault, if it has one.
func (n *Notifier) text(o *Original, kind, language string, data any) text {
	t, err := n.templates.render(kind, language, data)
	if err != nil {
		n.log.Error("a template failed, the built-in text is sent", "qid", cutOctets(o.QueueID, maxQueueID), "error", err.Error())
	}
	return t
}

// languageOf is the first language of the sender's (Accept-Language of RFC 3282,
// which some clients write, else Content-Language) that we have a DSN in. Weights
// are not read: those who write several begin with the best.
func (n *Notifier) languageOf(o *Original) string {
	for _, field := range []string{"Accept-Language", "Content-Language"} {
		for tag := range strings.SplitSeq(cutOctets(o.value(field), maxValue), ",") {
			tag, _, _ = strings.Cut(tag, ";")
			if tag = strings.TrimSpace(tag); n.templates.speaks(kindDSN, tag) {
				return tag
			}
		}
	}
	return fallback
}

func part(namesAndValues ...string) textproto.MIMEHeader {
	h := make(textproto.MIMEHeader)
	for i := 0; i < len(namesAndValues); i += 2 {
		h.Set(namesAndValues[i], namesAndValues[i+1])
	}
	return h
}

// writePart writes to a buffer, which takes everything.
func writePart(parts *multipart.Writer, header textproto.MIMEHeader, body []byte) {
	if w, err := parts.CreatePart(header); err == nil {
		_, _ = w.Write(body)
	}
}

// quotePrintable encodes a text; line ends become CRLF.
func quotePrintable(text []byte) []byte {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	_, _ = w.Write(text) // a buffer takes everything
	_ = w.Close()
	return b.Bytes()
}
