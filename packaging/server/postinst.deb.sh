#!/bin/sh
set -e

case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
	systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} authkey-server.conf
	systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create authkey-server.conf || true

	# Not enabled: authkey-server init comes first.
	deb-systemd-helper unmask authkey-server.service >/dev/null || true
	deb-systemd-helper update-state authkey-server.service >/dev/null || true

	if [ -z "${DPKG_ROOT:-}" ] && aa-enabled --quiet 2>/dev/null; then
		apparmor_parser -r -T -W /etc/apparmor.d/usr.sbin.authkey-server || true
	fi

	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		if [ -n "$2" ]; then
			deb-systemd-invoke try-restart authkey-server.service >/dev/null || true
		fi
	fi
	;;
esac
