#!/bin/sh
set -e

if [ "$1" = remove ]; then
	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
	fi
	deb-systemd-helper mask authkey-server.service >/dev/null || true
fi

if [ "$1" = purge ]; then
	deb-systemd-helper purge authkey-server.service >/dev/null || true
	deb-systemd-helper unmask authkey-server.service >/dev/null || true
	rm -f /etc/apparmor.d/local/usr.sbin.authkey-server /etc/apparmor.d/disable/usr.sbin.authkey-server \
		/etc/apparmor.d/force-complain/usr.sbin.authkey-server
	rmdir /etc/apparmor.d/local /etc/apparmor.d 2>/dev/null || true
	# Who changes a file holds a lock beside it. Nobody is left who would.
	rm -f /etc/authkey/server.yaml.lock /etc/authkey/credentials/*.secret.lock
	[ ! -d /etc/authkey/addresses ] || find /etc/authkey/addresses -type f -name '*.lock' -empty -delete
	if [ ! -e /usr/sbin/authkey-milter ]; then
		rmdir /etc/authkey/credentials /etc/authkey/addresses /etc/authkey 2>/dev/null || true
	fi
fi
