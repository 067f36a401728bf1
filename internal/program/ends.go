package program

import "errors"

// Ends reports whether an error is one of Exit: it says with which code the program ends.
func Ends(err error) bool {
	var e *exit
	return errors.As(err, &e)
}
