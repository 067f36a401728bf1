// Package program holds what the authkey programs have in common: exit codes, the
// command line's root, the commands check, config and version, the asking of a
// question for people, and how a service talks to systemd.
//
// Nothing here knows of mail, of the derivation of keys, or of the protocols on the sockets.
package program
