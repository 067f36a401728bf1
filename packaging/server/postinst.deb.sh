#!/bin/sh
set -e

case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
	systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} authkey-server.conf
	systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create authkey-server.conf || true

	# Not enabled: authkey-server init comes first.
	deb-systemd-helper unmask authkey-server.service >/dev/null || true
	deb-systemd-helper update-state authkey-server.service >/dev/null || true

	# Before the service starts, which asks for the profile by name.
	if [ -z "${DPKG_ROOT:-}" ] && [ -f /etc/apparmor.d/usr.sbin.authkey-server ]; then
		if [ ! -e /etc/apparmor.d/local/usr.sbin.authkey-server ]; then
			mkdir -p /etc/apparmor.d/local
			install -m 0644 /dev/null /etc/apparmor.d/local/usr.sbin.authkey-server
		fi
		if aa-enabled --quiet 2>/dev/null; then
			apparmor_parser -r -T -W /etc/apparmor.d/usr.sbin.authkey-server || true
		fi
	fi

	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		if [ -n "$2" ]; then
			deb-systemd-invoke try-restart authkey-server.service >/dev/null || true
		fi
	fi

	if [ "$1" = configure ] && [ ! -e "${DPKG_ROOT:-}/etc/authkey/server.yaml" ]; then
		cat <<'TEXT'

authkey-server is installed, neither enabled nor running. For a domain of yours, and the
name under which this machine is reached:

    authkey-server init example.com --host as.example.com

makes the files and says what else there is to do. The rest is in
/usr/share/doc/authkey-server/README.Debian, and the documents are beside it.

TEXT
	fi
	;;
esac
