// Package policy turns the result of a verification, the recipients of a
// message and the administrator's wishes into a Plan: what happens to the
// message and what the SMTP client hears.
//
// It is pure: no clock, no socket, no state from one message to the next, so
// that the same input gives the same Plan, and a table test can say so.
package policy
