package main

import (
	"errors"
	"os/user"
	"slices"
	"strconv"

	"github.com/authkey/authkey/internal/config"
)

// unknownGroup is the fault of a socket.group that is none of this machine's: serve would
// not start.
func unknownGroup(loaded *config.Loaded) error {
	c := loaded.Config
	unix := slices.ContainsFunc(c.Listen, func(l config.Listen) bool { return l.Network == "unix" })
	if _, err := strconv.Atoi(c.Socket.Group); c.Socket.Group == "" || !unix || err == nil {
		return nil
	}
	var unknown user.UnknownGroupError
	if _, err := user.LookupGroup(c.Socket.Group); errors.As(err, &unknown) {
		return loaded.Fault("socket.group", strconv.Quote(c.Socket.Group)+" is no group of this machine", "one that getent group lists, or its number")
	}
	return nil
}
