// Package packagetest holds the tests of the packages: what is in them, that the same
// tree makes the same octets, and that they can be installed, upgraded and removed, and
// work, on a Debian 12 and a Debian 13 of their own; what other users of the machine and
// a service that was taken over cannot do there; and that the AppArmor profiles allow
// what the services really open. There is nothing here but tests.
//
// They need root and namespaces: each Debian is debootstrapped into the user's cache
// folder once, and booted by systemd-nspawn on an overlay in memory, without a network.
// Nothing else on the machine is changed, but the Debian packages of the tools are installed
// where they are missing. If one of these needs cannot be met the tests fail, and say which.
package packagetest
