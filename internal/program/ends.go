package program

import "errors"

// Ends reports whether an error is one of Exit: it says with which code the program ends.
func Ends(err error) bool {
	var e *exit
	return errors.As(err, &e)
}

// Report tells systemd, if there is one, the status line of a service at once, before
// Run's next beat does.
func Report(status string) { notify("STATUS=" + status) }
