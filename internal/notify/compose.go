package notify

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"mime/quotedprintable"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-message/textproto"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/milter"
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
	o    *original
	kind string
	to   string // as mailbox returns it
	id   digest // of what is sent: the same mail, sent again, has the same Message-ID
}

// host is the host in whose name the mail is sent: the MTA which the message came to, or
// this machine where the MTA's name is not known or is no host name.
func (c composer) host() string {
	if name, err := hostName(c.o.MTA); err == nil {
		return name
	}
	return c.n.opts.Hostname
}

// writeHeader writes the header, and the empty line after it: the fields about the body,
// which h has, and those that all our mail has. Auto-Submitted is that of RFC 3834 sections
// 3.1.7 and 5, References and In-Reply-To are those of section 3.1.6.
func (c composer) writeHeader(b *bytes.Buffer, h mail.Header, subject string) {
	from, auto := "MAILER-DAEMON", "auto-replied"
	if c.kind == kindNotice {
		from, auto = "postmaster", "auto-generated"
	}
	// Each goes on top of those before.
	h.Set("MIME-Version", "1.0")
	h.Set(reportField, c.kind)
	h.Set("Auto-Submitted", auto)
	if id := c.o.messageID(); id != "" {
		h.SetMsgIDList("References", []string{id})
		h.SetMsgIDList("In-Reply-To", []string{id})
	}
	h.SetMessageID("authkey-" + c.kind + "." + hex.EncodeToString(c.id[:]) + "@" + c.host())
	// What looks like an encoded word and is none must not be read as one.
	h.SetSubject(strings.ReplaceAll(subject, "=?", "= ?"))
	foldWords(&h, "Subject")
	h.AddRaw([]byte("To: <" + c.to + ">\r\n")) // it is quoted where need be; a quoted blank is no place to fold
	h.SetAddressList("From", []*mail.Address{{Name: c.n.opts.FromName, Address: from + "@" + c.host()}})
	foldWords(&h, "From")
	h.SetDate(c.n.now())
	_ = textproto.WriteHeader(b, h.Header.Header) // a buffer takes everything, and no value has a line break
}

// foldWords folds the field on top between its encoded words: a line with them may have 76
// octets (RFC 2047 section 2), and the library, for which one word is too long to fold
// after, puts them on lines of up to 998.
func foldWords(h *mail.Header, name string) {
	value := h.Get(name)
	if folded := strings.ReplaceAll(value, "?= =?", "?=\r\n =?"); folded != value {
		h.Del(name)
		h.AddRaw([]byte(name + ": " + folded + "\r\n"))
	}
}

// notice writes a notice: one text, 7bit whatever its language.
func (c composer) notice(notice milter.Notice) []byte {
	t := c.n.text(c.o, kindNotice, notice.Language, NoticeFields{
		MessageFields: c.fields(),
		Recipient:     shownAddress(notice.Recipient), Domain: oneLine(domainOf(c.to), maxValue),
		From: c.o.text("From"), Client: oneLine(c.o.Client, maxValue), Refused: notice.Refused,
	})
	var h mail.Header
	h.Set("Content-Language", t.language)
	h.Set("Content-Transfer-Encoding", "quoted-printable")
	h.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
	var b bytes.Buffer
	c.writeHeader(&b, h, t.subject)
	b.Write(quotePrintable([]byte(t.body)))
	return b.Bytes()
}

// dsn writes a multipart/report (RFC 6522 section 3) about all of failures: a text, a
// message/delivery-status (RFC 3464 section 2) and the original's header as
// text/rfc822-headers (RFC 6522 section 4). A sender whose address needs UTF-8 gets the
// media types of RFC 6533 section 4 (wide); for any other sender the DSN is 7bit.
func (c composer) dsn(failures []milter.Failure) []byte {
	wide := !esmtp.IsASCII(c.to)
	t := c.n.text(c.o, kindDSN, c.n.languageOf(c.o), c.dsnFields(failures))
	var b bytes.Buffer
	parts := textproto.NewMultipartWriter(&b)
	var h mail.Header
	if wide {
		h.Set("Content-Transfer-Encoding", "8bit")
	}
	// Random for each DSN: the author of the quoted header must not know what would end its part.
	h.SetContentType("multipart/report", map[string]string{"report-type": "delivery-status", "boundary": c.n.boundary(parts)})
	c.writeHeader(&b, h, t.subject)

	human := part("Content-Type", "text/plain; charset=utf-8", "Content-Transfer-Encoding", "quoted-printable", "Content-Language", t.language)
	writePart(parts, human, quotePrintable([]byte(t.body)))

	status, original := part("Content-Type", "message/delivery-status"), part("Content-Type", "text/rfc822-headers")
	quoted := quoteFields(c.o.Header, wide)
	if wide {
		status = part("Content-Type", "message/global-delivery-status", "Content-Transfer-Encoding", "8bit")
		original = part("Content-Type", "message/global-headers", "Content-Transfer-Encoding", "8bit")
	} else if !esmtp.IsASCII(string(quoted)) {
		original.Set("Content-Transfer-Encoding", "quoted-printable")
		quoted = quotePrintable(quoted)
	}
	writePart(parts, status, c.status(failures, wide))
	writePart(parts, original, quoted)
	_ = parts.Close() // a buffer takes everything
	return b.Bytes()
}

func (c composer) dsnFields(failures []milter.Failure) DSNFields {
	fields := DSNFields{MessageFields: c.fields(), Reply: replyLine(failures[0]), More: max(0, len(failures)-maxListed)}
	for _, f := range failures[:len(failures)-fields.More] {
		fields.Recipients = append(fields.Recipients, shownAddress(f.Recipient))
	}
	return fields
}

func (c composer) fields() MessageFields {
	o := c.o
	return MessageFields{
		Sender: shownAddress(o.Sender), Subject: o.text("Subject"), QueueID: oneLine(o.QueueID, maxValue), Arrived: o.Arrived,
		Checked: shownAddress(o.checked()), Result: string(o.Result.Status), Reason: string(o.Result.Reason), Host: c.host(),
	}
}

// shownAddress is an address of the envelope as the texts have it.
func shownAddress(addr string) string { return oneLine(esmtp.SafeAddress(addr), maxValue) }

// status writes the fields about the message (RFC 3464 section 2.2), an extension field
// (section 2.4), and those about each recipient (section 2.3). Status 5.7.1 is "delivery not
// authorized, message refused" (RFC 3463 section 3.8).
func (c composer) status(failures []milter.Failure, wide bool) []byte {
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
func replyLine(f milter.Failure) string {
	if f.Reply.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d %s %s", f.Reply.Code, printable(f.Reply.Enhanced), cutOctets(printable(f.Reply.Text), maxLine-64))
}

// text renders a template and logs its fault, if it has one.
func (n *Notifier) text(o *original, kind, language string, data any) text {
	t, err := n.templates.render(kind, language, data)
	if err != nil {
		n.log.Error("a template failed, the built-in text is sent", "qid", cutOctets(o.QueueID, maxQueueID), "error", err.Error())
	}
	return t
}

// languageOf is the first language of the sender's that we have a DSN in: of
// Accept-Language, which some clients write, or else of Content-Language (RFC 3282 sections 3
// and 2). Weights are not read, since clients that write several begin with the best.
func (n *Notifier) languageOf(o *original) string {
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

// part is the header of a part.
func part(namesAndValues ...string) textproto.Header {
	var h textproto.Header
	for pair := range slices.Chunk(namesAndValues, 2) {
		h.Set(pair[0], pair[1])
	}
	return h
}

// writePart writes to a buffer, which takes everything.
func writePart(parts *textproto.MultipartWriter, header textproto.Header, body []byte) {
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
