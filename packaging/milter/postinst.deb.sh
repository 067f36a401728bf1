#!/bin/sh
set -e

for_postfix() {
	# Where Postfix came after us, the sockets are not its own yet.
	chgrp postfix /run/authkey/milter.sock /var/spool/postfix/authkey/milter.sock 2>/dev/null || true
}

case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
	systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} authkey-milter.conf
	systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create authkey-milter.conf || true

	for unit in authkey-milter.socket authkey-milter.service; do
		deb-systemd-helper unmask "$unit" >/dev/null || true
		if deb-systemd-helper --quiet was-enabled "$unit"; then
			deb-systemd-helper enable "$unit" >/dev/null || true
		else
			deb-systemd-helper update-state "$unit" >/dev/null || true
		fi
	done

	if [ -z "${DPKG_ROOT:-}" ] && aa-enabled --quiet 2>/dev/null; then
		apparmor_parser -r -T -W /etc/apparmor.d/usr.sbin.authkey-milter || true
	fi

	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		# The sockets stay over an upgrade: MTAs wait for the moment that it takes.
		deb-systemd-invoke start authkey-milter.socket >/dev/null || true
		if [ -n "$2" ]; then
			deb-systemd-invoke restart authkey-milter.service >/dev/null || true
		else
			deb-systemd-invoke start authkey-milter.service >/dev/null || true
		fi
		for_postfix
	fi
	;;
triggered)
	for_postfix
	;;
esac
