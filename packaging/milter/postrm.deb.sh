#!/bin/sh
set -e

if [ "$1" = remove ]; then
	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
	fi
	deb-systemd-helper mask authkey-milter.socket authkey-milter.service >/dev/null || true
	rmdir /var/spool/postfix/authkey /run/authkey 2>/dev/null || true
fi

if [ "$1" = purge ]; then
	deb-systemd-helper purge authkey-milter.socket authkey-milter.service >/dev/null || true
	deb-systemd-helper unmask authkey-milter.socket authkey-milter.service >/dev/null || true
	rm -rf /var/lib/authkey
	rm -f /etc/apparmor.d/local/usr.sbin.authkey-milter /etc/apparmor.d/disable/usr.sbin.authkey-milter \
		/etc/apparmor.d/force-complain/usr.sbin.authkey-milter
	rmdir /etc/apparmor.d/local /etc/apparmor.d 2>/dev/null || true
	rmdir /etc/authkey 2>/dev/null || true
fi
