// Package program holds what the authkey programs have in common: exit codes, the
// command line's root, the commands check, config and version, the asking of a
// question for people, and how a service talks to systemd.
//
// What a program does is its own: nothing here knows of mail, keys' derivation or
// sockets' protocols.
package program
