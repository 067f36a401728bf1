package doctor

import (
	"net/smtp"

	"github.com/authkey/authkey/milter"
)

// probeMail begins a transaction of the null sender that is no mail, and says so where
// the server takes ENVID (RFC 3461): the milter marks the line about it, which report
// leaves out.
func probeMail(c *smtp.Client) error {
	if known, _ := c.Extension("DSN"); !known {
		return c.Mail("")
	}
	id, err := c.Text.Cmd("MAIL FROM:<> ENVID=%s", milter.ProbeEnvelopeID)
	if err != nil {
		return err
	}
	c.Text.StartResponse(id)
	defer c.Text.EndResponse(id)
	_, _, err = c.Text.ReadResponse(250)
	return err
}
